//! Looks at a machine's disk from outside, with the guest's own file system code.

use anyhow::{Context, Result, anyhow};
use ext2::{Options, ROOT, Volume};

use crate::devices::disk::Overlay;

/// Longest file that is read.
const FILE_MAX: u64 = 256 << 20;

/// The contents of the file at an absolute path without symbolic links; `None` when there is
/// no such file. What the guest has not written back is not there.
pub fn file(disk: &Overlay, path: &str) -> Result<Option<Vec<u8>>> {
    let options = Options {
        read_only: true,
        no_atime: true,
        ..Options::default()
    };
    let mut volume = Volume::mount(disk.clone(), options)
        .map_err(|error| anyhow!("{error:?}"))
        .context("the machine's disk")?;
    let failed = |errno: ext2::Errno| anyhow!("{path}: {errno:?}");
    let mut ino = ROOT;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        ino = match volume.lookup(ino, name.as_bytes()) {
            Ok(ino) => ino,
            Err(ext2::Errno::ENOENT | ext2::Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
    }
    let size = volume.attributes(ino).map_err(failed)?.size;
    anyhow::ensure!(size <= FILE_MAX, "{path}: {size} bytes, more than is read");
    let mut contents = vec![0; size as usize];
    let len = volume.read(ino, 0, &mut contents).map_err(failed)?;
    contents.truncate(len);
    Ok(Some(contents))
}
