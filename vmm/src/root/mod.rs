//! The root disk of a run.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::log::complain;

pub mod absent;
pub mod closure;
mod directory;
pub mod embedded;
mod kept;
pub mod with;

/// A disk: a file, and what becomes of the guest's changes.
#[derive(Debug)]
pub struct Disk {
    /// Raw content.
    pub file: File,
    /// Writes are refused.
    pub read_only: bool,
    /// What the guest changes is forgotten with the machine: others may use the file, too.
    pub snapshot: bool,
}

/// Where ext2 keeps its magic number, and the number.
const MAGIC_AT: u64 = 1024 + 56;
const MAGIC: [u8; 2] = 0xef53u16.to_le_bytes();

/// Where this program keeps files of the user's that it can make again: `$XDG_CACHE_HOME/absentia` or `~/.cache/absentia`.
pub fn cache() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = named("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| named("HOME").map(|home| Path::new(&home).join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("absentia")
}

/// Opens what `--root` names: a directory becomes an image, an image is used as it is; with `snapshot` it
/// stays as it is.
pub fn open(path: &Path, snapshot: bool) -> Result<Disk> {
    let kind = path
        .metadata()
        .with_context(|| format!("--root {}", path.display()))?
        .file_type();
    if kind.is_dir() {
        directory::image_of(path, &kept::Images::of_user())
    } else if kind.is_file() {
        open_image(path, snapshot)
    } else {
        bail!(
            "--root {}: neither a directory nor a disk image",
            path.display()
        )
    }
}

/// The image of a directory as it is now, which is not kept.
pub fn image_of_directory(path: &Path) -> Result<Disk> {
    directory::image_of(path, &kept::Images::nowhere())
}

fn open_image(path: &Path, snapshot: bool) -> Result<Disk> {
    let named = || format!("disk image {}", path.display());
    let (file, read_only) = match snapshot {
        true => (File::open(path).with_context(named)?, false),
        false => open_as_allowed(path).with_context(named)?,
    };
    let mut magic = [0; 2];
    let read = file.read_exact_at(&mut magic, MAGIC_AT);
    ensure!(
        read.is_ok() && magic == MAGIC,
        "{}: no ext2 file system in it",
        named()
    );
    if let Some(features) = foreign_features(&file) {
        bail!(
            "{}: not plain ext2, it uses {features}: make it with mke2fs -t ext2",
            named()
        );
    }
    let lock = match read_only || snapshot {
        // Any number may read it together.
        true => FlockOperation::NonBlockingLockShared,
        false => FlockOperation::NonBlockingLockExclusive,
    };
    flock(&file, lock).with_context(|| match snapshot {
        true => format!("{}: another machine changes it", named()),
        false => format!(
            "{}: another machine uses it: --snapshot lets several use one that none of them changes",
            named()
        ),
    })?;
    if read_only {
        complain(&format!(
            "absentia: {} may only be read: it is mounted read-only",
            named()
        ));
    }
    Ok(Disk {
        file,
        read_only,
        snapshot,
    })
}

/// Opens an image for writing, or where that is not allowed for reading alone; whether that is
/// so. An image that nobody may write is not written for root either, who could.
fn open_as_allowed(path: &Path) -> io::Result<(File, bool)> {
    let nobody_writes = path.metadata()?.mode() & 0o222 == 0;
    let opened = OpenOptions::new()
        .read(true)
        .write(!nobody_writes)
        .open(path);
    match opened {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok((File::open(path)?, true))
        }
        opened => Ok((opened?, nobody_writes)),
    }
}

/// The names of the incompatible features, if any, that ext2 does not have.
fn foreign_features(file: &File) -> Option<String> {
    /// An extended superblock's incompatible features, a u32.
    const REVISION_AT: u64 = 1024 + 76;
    const INCOMPATIBLE_AT: u64 = 1024 + 96;
    const KNOWN: u32 = 0x2;
    const NAMES: [(u32, &str); 9] = [
        (0x1, "compression"),
        (0x4, "needs_recovery"),
        (0x8, "journal_dev"),
        (0x10, "meta_bg"),
        (0x40, "extent"),
        (0x80, "64bit"),
        (0x200, "flex_bg"),
        (0x8000, "inline_data"),
        (0x10000, "encrypt"),
    ];
    let word = |at| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at).ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let foreign = word(INCOMPATIBLE_AT)? & !KNOWN;
    if word(REVISION_AT)? == 0 || foreign == 0 {
        return None;
    }
    let mut names: Vec<String> = NAMES
        .iter()
        .filter(|(bit, _)| foreign & bit != 0)
        .map(|(_, name)| name.to_string())
        .collect();
    let unnamed = NAMES.iter().fold(foreign, |rest, (bit, _)| rest & !bit);
    if unnamed != 0 {
        names.push(format!("features {unnamed:#x}"));
    }
    Some(names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn an_image_is_checked_and_locked() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        assert!(
            open(file.path(), false)
                .unwrap_err()
                .to_string()
                .contains("no ext2")
        );
        let mut content = vec![0; 4096];
        content[MAGIC_AT as usize..][..2].copy_from_slice(&MAGIC);
        file.write_all(&content).unwrap();
        let first = open(file.path(), false).unwrap();
        assert!(
            open(file.path(), false)
                .unwrap_err()
                .to_string()
                .contains("another machine")
        );
        let error = open(file.path(), true).unwrap_err().to_string();
        assert!(error.contains("another machine changes it"), "{error}");
        drop(first);
        assert!(!open(file.path(), false).unwrap().read_only);
        let both = [open(file.path(), true), open(file.path(), true)];
        assert!(
            both.iter()
                .flatten()
                .all(|disk| disk.snapshot && !disk.read_only)
        );
        assert!(open(file.path(), false).is_err());
        drop(both);
        let mut permissions = file.path().metadata().unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(file.path(), permissions).unwrap();
        let first = open(file.path(), false).unwrap();
        assert!(first.read_only && open(file.path(), false).unwrap().read_only);
    }

    #[test]
    fn an_image_with_features_of_ext4_is_refused_by_their_names() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut content = vec![0; 4096];
        content[MAGIC_AT as usize..][..2].copy_from_slice(&MAGIC);
        content[1024 + 76] = 1;
        for (features, said) in [
            (0x2c2u32, "uses extent, 64bit, flex_bg:"),
            (0x8000_0002, "uses features 0x80000000:"),
        ] {
            content[1024 + 96..][..4].copy_from_slice(&features.to_le_bytes());
            file.as_file().write_all_at(&content, 0).unwrap();
            let error = open(file.path(), false).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        content[1024 + 96..][..4].copy_from_slice(&2u32.to_le_bytes());
        file.as_file().write_all_at(&content, 0).unwrap();
        assert!(open(file.path(), false).is_ok());
    }

    #[test]
    fn a_missing_root_is_named() {
        let error = open(Path::new("/nonexistent/root"), false).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/root"));
    }
}
