//! The root disk of a run.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

pub mod closure;
mod directory;
pub mod embedded;

/// A disk: a file, and whether the guest may change it.
#[derive(Debug)]
pub struct Disk {
    /// Raw content.
    pub file: File,
    /// Writes are refused.
    pub read_only: bool,
}

/// Where ext2 keeps its magic number, and the number.
const MAGIC_AT: u64 = 1024 + 56;
const MAGIC: [u8; 2] = 0xef53u16.to_le_bytes();

/// Opens what `--root` names: a directory becomes an image for this run, an image is used
/// as it is.
pub fn open(path: &Path) -> Result<Disk> {
    let kind = path
        .metadata()
        .with_context(|| format!("--root {}", path.display()))?
        .file_type();
    if kind.is_dir() {
        directory::image_of(path)
    } else if kind.is_file() {
        open_image(path)
    } else {
        bail!(
            "--root {}: neither a directory nor a disk image",
            path.display()
        )
    }
}

fn open_image(path: &Path) -> Result<Disk> {
    let named = || format!("disk image {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(named)?;
    let mut magic = [0; 2];
    let read = file.read_exact_at(&mut magic, MAGIC_AT);
    ensure!(
        read.is_ok() && magic == MAGIC,
        "{}: no ext2 file system in it",
        named()
    );
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("{}: another machine uses it", named()))?;
    Ok(Disk {
        file,
        read_only: false,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn an_image_is_checked_and_locked() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        assert!(
            open(file.path())
                .unwrap_err()
                .to_string()
                .contains("no ext2")
        );
        let mut content = vec![0; 4096];
        content[MAGIC_AT as usize..][..2].copy_from_slice(&MAGIC);
        file.write_all(&content).unwrap();
        let first = open(file.path()).unwrap();
        assert!(
            open(file.path())
                .unwrap_err()
                .to_string()
                .contains("another machine")
        );
        drop(first);
        assert!(open(file.path()).is_ok());
    }

    #[test]
    fn a_missing_root_is_named() {
        let error = open(Path::new("/nonexistent/root")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/root"));
    }
}
