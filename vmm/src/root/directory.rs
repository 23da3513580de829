//! `--root DIR`: an ext2 image of a directory, made by `mke2fs -d`.

use std::collections::hash_map::DefaultHasher;
use std::fs::{File, Metadata};
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use super::Disk;
use super::kept::Images;

/// Free space of the image beyond a fifth of the content.
const SPARE: u64 = 64 << 20;

/// The image of the directory: the one that was kept for it, or a new one.
pub fn image_of(dir: &Path, images: &Images) -> Result<Disk> {
    let before = Survey::of(dir)?;
    // Machines write beside an image that is kept.
    let kept = |file| Disk {
        file,
        read_only: false,
        snapshot: true,
    };
    match images.find(&before.key) {
        Some(file) => Ok(kept(file)),
        None => match make_to_keep(dir, images, &before) {
            Some(file) => Ok(kept(file)),
            None => make(dir, before.bytes),
        },
    }
}

/// Makes the image and keeps it, unless that cannot be or the directory was changed meanwhile.
fn make_to_keep(dir: &Path, images: &Images, before: &Survey) -> Option<File> {
    let image = images.place()?;
    fill(dir, &image, before.bytes).ok()?;
    let same = Survey::of(dir).is_ok_and(|after| after.key == before.key);
    match same {
        true => images.keep(image, &before.key).ok(),
        false => None,
    }
}

/// Makes an image that vanishes with the disk.
fn make(dir: &Path, bytes: u64) -> Result<Disk> {
    let image = tempfile::Builder::new().prefix("absentia-root-").tempfile();
    let image = image.with_context(|| {
        format!(
            "a file for the root disk, in {} (TMPDIR names another directory)",
            std::env::temp_dir().display()
        )
    })?;
    fill(dir, &image, bytes)?;
    Ok(Disk {
        file: image.reopen().context("opening the root disk")?,
        read_only: false,
        snapshot: false,
    })
}

/// Makes the image in a file, of a directory with contents of so many bytes.
fn fill(dir: &Path, image: &NamedTempFile, bytes: u64) -> Result<()> {
    let size = (bytes + bytes / 5 + SPARE).next_multiple_of(1 << 20);
    image
        .as_file()
        .set_len(size)
        .context("size of the root disk")?;
    let output = mke2fs()
        // A block a page: smaller ones, which mke2fs prefers on small disks, have more maps to read.
        .args(["-q", "-F", "-t", "ext2", "-b", "4096", "-d"])
        .arg(dir)
        .arg(image.path())
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "--root {} needs the program mke2fs (Debian package e2fsprogs), which is not here",
            dir.display()
        ),
        Err(error) => return Err(error).context("starting mke2fs"),
    };
    if !output.status.success() {
        bail!(
            "mke2fs -d {}: {}: {}",
            dir.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// `mke2fs`, also where the path of an ordinary user does not name it.
fn mke2fs() -> Command {
    let beside = ["/usr/sbin/mke2fs", "/sbin/mke2fs"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    Command::new(beside.unwrap_or("mke2fs"))
}

/// What a tree looks like from outside, without a look into files.
struct Survey {
    /// Bytes that it takes in blocks of 4 KiB, an inode for every entry included.
    bytes: u64,
    /// Names, sizes, times, modes, owners and identities of everything in it: who has the same has the same
    /// contents, for nobody can write a file and keep its ctime.
    key: String,
}

impl Survey {
    fn of(dir: &Path) -> Result<Survey> {
        let named = || format!("--root {}", dir.display());
        let mut bytes = 0;
        // Two of 64 bits that differ from the start.
        let mut hashes = [DefaultHasher::new(), DefaultHasher::new()];
        (1u8, env!("CARGO_PKG_VERSION")).hash(&mut hashes[0]);
        (2u8, env!("CARGO_PKG_VERSION")).hash(&mut hashes[1]);
        let mut note = |path: &Path, metadata: &Metadata| {
            let m = metadata;
            let times = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
            let what = (m.mode(), m.uid(), m.gid(), m.rdev(), m.nlink(), m.size());
            for hash in &mut hashes {
                (path.as_os_str().as_bytes(), m.dev(), m.ino(), times, what).hash(hash);
            }
        };
        let top = dir.canonicalize().with_context(named)?;
        note(&top, &top.metadata().with_context(named)?);
        let mut todo = vec![top];
        while let Some(dir) = todo.pop() {
            let named = || format!("--root: {}", dir.display());
            let entries = std::fs::read_dir(&dir).with_context(named)?;
            let mut entries = entries
                .collect::<std::io::Result<Vec<_>>>()
                .with_context(named)?;
            entries.sort_by_key(|entry| entry.file_name());
            for entry in entries {
                let metadata = entry.metadata().with_context(named)?;
                note(&entry.path(), &metadata);
                bytes += 256;
                if metadata.is_dir() {
                    bytes += 4096;
                    todo.push(entry.path());
                } else if metadata.is_file() {
                    bytes += metadata.size().next_multiple_of(4096);
                }
            }
        }
        let key = hashes
            .map(|hash| format!("{:016x}", hash.finish()))
            .concat();
        Ok(Survey { bytes, key })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_becomes_an_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::write(dir.path().join("bin/file"), vec![1; 100_000]).unwrap();
        match image_of(dir.path(), &Images::nowhere()) {
            Ok(disk) => assert!(disk.file.metadata().unwrap().len() >= SPARE),
            Err(error) => assert!(error.to_string().contains("e2fsprogs"), "{error:#}"),
        }
    }

    #[test]
    fn every_change_of_a_tree_is_another_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let key = || Survey::of(dir.path()).unwrap().key;
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("d/f"), "one").unwrap();
        let first = key();
        assert_eq!(key(), first);
        std::fs::read(path("d/f")).unwrap();
        assert_eq!(key(), first, "who only looks changes nothing");
        let mut keys = vec![first];
        let mut changed = |what: &str| {
            let now = key();
            assert!(!keys.contains(&now), "{what}");
            keys.push(now);
        };
        // The same size, and the same time of modification.
        let time = path("d/f").metadata().unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(path("d/f"), "two").unwrap();
        let file = File::options().write(true).open(path("d/f")).unwrap();
        file.set_modified(time).unwrap();
        changed("contents");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path("d/f"), mode).unwrap();
        changed("mode");
        std::fs::rename(path("d/f"), path("d/g")).unwrap();
        changed("name");
        std::os::unix::fs::symlink("g", path("d/s")).unwrap();
        changed("link");
        std::fs::remove_file(path("d/s")).unwrap();
        changed("removed");
        let mode = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(dir.path(), mode).unwrap();
        changed("the directory's own mode");
    }
}
