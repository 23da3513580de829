//! Looks at a machine's disk from outside, with the guest's own file system code.

use std::collections::BTreeMap;

use abi::fs::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use anyhow::{Context, Result, anyhow, ensure};
use ext2::{HeapPages, Options, ROOT, Volume};

use crate::devices::disk::Overlay;

/// Longest file that is read.
const FILE_MAX: u64 = 256 << 20;
/// Most names that are looked at: a damaged disk may have circles.
const NAMES_MAX: usize = 1 << 16;

fn mount(disk: &Overlay) -> Result<Volume<Overlay, HeapPages>> {
    let options = Options {
        read_only: true,
        no_atime: true,
        ..Options::default()
    };
    Volume::mount(disk.clone(), options)
        .map_err(|error| anyhow!("{error:?}"))
        .context("the machine's disk")
}

/// What a name stands for, as far as it must be the same after two runs that took different
/// times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Type and permissions.
    pub mode: u32,
    /// Names.
    pub links: u32,
    /// Owner and group.
    pub ids: (u32, u32),
    /// Bytes; of directories, how many names are in them.
    pub size: u64,
    /// Hash of a file's contents or of a link's target.
    pub hash: u64,
}

/// Everything on the disk, by path.
pub fn tree(disk: &Overlay) -> Result<BTreeMap<String, Node>> {
    let mut volume = mount(disk)?;
    let mut nodes = BTreeMap::new();
    let mut open = vec![(String::new(), ROOT)];
    while let Some((path, ino)) = open.pop() {
        ensure!(nodes.len() < NAMES_MAX, "the disk has too many names");
        let failed = |errno: ext2::Errno| anyhow!("{path}: {errno:?}");
        let attributes = volume.attributes(ino).map_err(failed)?;
        let mut node = Node {
            mode: attributes.mode,
            links: attributes.nlink,
            ids: (attributes.uid, attributes.gid),
            size: attributes.size,
            hash: 0,
        };
        match attributes.mode & S_IFMT {
            S_IFDIR => {
                let mut names = Vec::new();
                volume
                    .read_dir(ino, 0, &mut |entry| {
                        if entry.name != b"." && entry.name != b".." {
                            names.push((entry.name.to_vec(), entry.ino));
                        }
                        true
                    })
                    .map_err(failed)?;
                node.size = names.len() as u64;
                for (name, ino) in names {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    open.push((format!("{path}/{name}"), ino));
                }
            }
            S_IFLNK => {
                let mut target = [0; 4096];
                let len = volume.readlink(ino, &mut target).map_err(failed)?;
                node.hash = hash(&target[..len]);
            }
            S_IFREG => node.hash = hash(&contents(&mut volume, ino, &path)?),
            _ => node.size = attributes.rdev,
        }
        nodes.insert(if path.is_empty() { "/".into() } else { path }, node);
    }
    Ok(nodes)
}

/// A hash of bytes, the same on every host.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut record = abi::trace::Record::default();
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(64) {
        let mut words = [0u64; 8];
        for (word, bytes) in words.iter_mut().zip(chunk.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(whole);
        }
        let [time, what, words @ ..] = words;
        (record.time, record.what, record.words) = (time, what, words);
        hash = abi::trace::mix(hash, &record);
    }
    hash
}

fn contents(volume: &mut Volume<Overlay, HeapPages>, ino: u32, path: &str) -> Result<Vec<u8>> {
    let failed = |errno: ext2::Errno| anyhow!("{path}: {errno:?}");
    let size = volume.attributes(ino).map_err(failed)?.size;
    ensure!(size <= FILE_MAX, "{path}: {size} bytes, more than is read");
    let mut contents = vec![0; size as usize];
    let len = volume.read(ino, 0, &mut contents).map_err(failed)?;
    contents.truncate(len);
    Ok(contents)
}

/// The contents of the file at an absolute path without symbolic links; `None` when there is
/// no such file. What the guest has not written back is not there.
pub fn file(disk: &Overlay, path: &str) -> Result<Option<Vec<u8>>> {
    let mut volume = mount(disk)?;
    let failed = |errno: ext2::Errno| anyhow!("{path}: {errno:?}");
    let mut ino = ROOT;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        ino = match volume.lookup(ino, name.as_bytes()) {
            Ok(ino) => ino,
            Err(ext2::Errno::ENOENT | ext2::Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
    }
    contents(&mut volume, ino, path).map(Some)
}
