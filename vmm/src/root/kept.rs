//! Images of directories, kept for the next run: `--root DIRECTORY` starts as fast as `--root IMAGE` as long as the
//! directory is the same.
//!
//! An image is never changed (machines write beside it), has its key for a name and is put there whole, by a rename. What
//! cannot be kept only costs time: no error of these files is one of the run.

use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

/// Bytes on the disk that all images together may take.
const BYTES: u64 = 4 << 30;
/// How many there may be.
const COUNT: usize = 16;
/// An image that is being made has another name, which a run that was killed leaves behind; for that long.
const STALE: Duration = Duration::from_secs(24 * 3600);
const UNFINISHED: &str = "unfinished-";
const FINISHED: &str = "root-";

/// Where images are kept, if anywhere.
#[derive(Clone, Debug)]
pub struct Images {
    directory: Option<PathBuf>,
    bytes: u64,
    count: usize,
}

impl Images {
    /// In the user's cache directory.
    pub fn of_user() -> Images {
        Images::within(&super::cache().join("roots"), BYTES, COUNT)
    }

    /// Nowhere.
    pub fn nowhere() -> Images {
        Images {
            directory: None,
            bytes: 0,
            count: 0,
        }
    }

    fn within(directory: &Path, bytes: u64, count: usize) -> Images {
        Images {
            directory: Some(directory.to_path_buf()),
            bytes,
            count,
        }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        Some(self.directory.as_ref()?.join(format!("{FINISHED}{key}")))
    }

    /// The image with this key, which counts as used now.
    pub fn find(&self, key: &str) -> Option<File> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.path(key)?);
        let file = file.ok()?;
        let metadata = file.metadata().ok()?;
        // The directory may be one for everybody: what another user put there is not believed.
        let ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_file() || !ours || metadata.mode() & 0o022 != 0 {
            return None;
        }
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        Some(file)
    }

    /// A file to make an image in that can be kept.
    pub fn place(&self) -> Option<NamedTempFile> {
        let directory = self.directory.as_ref()?;
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).ok()?;
        let mut file = tempfile::Builder::new();
        file.prefix(UNFINISHED).tempfile_in(directory).ok()
    }

    /// Keeps an image under its key, and drops what was not used for longest.
    pub fn keep(&self, image: NamedTempFile, key: &str) -> io::Result<File> {
        let Some(path) = self.path(key) else {
            return Ok(image.into_file());
        };
        if image.as_file().metadata()?.blocks() * 512 > self.bytes {
            return image.reopen();
        }
        // A name must not outlive its contents when the power goes.
        image.as_file().sync_all()?;
        let file = image.persist(&path).map_err(|error| error.error)?;
        let _ = self.trim(&path);
        Ok(file)
    }

    /// Drops the oldest images, but not `latest`, until the others are within the bounds.
    fn trim(&self, latest: &Path) -> io::Result<()> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let now = SystemTime::now();
        let mut images = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let modified = metadata.modified()?;
            let age = now.duration_since(modified).unwrap_or_default();
            if name.starts_with(UNFINISHED) && age > STALE {
                let _ = fs::remove_file(entry.path());
            } else if name.starts_with(FINISHED) {
                let used = (entry.path() == latest, modified);
                images.push((used, metadata.blocks() * 512, entry.path()));
            }
        }
        images.sort();
        let mut bytes: u64 = images.iter().map(|image| image.1).sum();
        let mut count = images.len();
        for ((latest, _), size, path) in images {
            if latest || (bytes <= self.bytes && count <= self.count) {
                break;
            }
            fs::remove_file(path)?;
            bytes -= size;
            count -= 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn keep(images: &Images, key: &str, content: &[u8]) {
        let mut image = images.place().unwrap();
        image.write_all(content).unwrap();
        images.keep(image, key).unwrap();
    }

    fn found(images: &Images, key: &str) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        images.find(key)?.read_to_end(&mut content).unwrap();
        Some(content)
    }

    #[test]
    fn images_are_kept_within_bounds_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let within = dir.path().join("a/b");
        let images = Images::within(&within, 1 << 20, 3);
        assert!(images.find("0").is_none());
        for key in ["0", "1", "2"] {
            keep(&images, key, key.as_bytes());
            std::thread::sleep(Duration::from_millis(20));
        }
        // What was used stays.
        assert_eq!(found(&images, "0").unwrap(), b"0");
        std::thread::sleep(Duration::from_millis(20));
        keep(&images, "3", &[3; 4096]);
        let there = ["0", "1", "2", "3"].map(|key| found(&images, key).is_some());
        assert_eq!(there, [true, false, true, true]);
        // One that is large drives out others; one that is too large is not kept.
        keep(&images, "4", &vec![4; (1 << 20) - 4096]);
        assert!(found(&images, "4").is_some() && found(&images, "0").is_none());
        keep(&images, "5", &vec![5; 2 << 20]);
        assert!(found(&images, "5").is_none() && found(&images, "4").is_some());
        let names = fs::read_dir(&within).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        let whole = |name: &std::ffi::OsString| name.to_string_lossy().starts_with(FINISHED);
        assert!(names.iter().all(whole), "{names:?}");
    }

    #[test]
    fn what_others_may_have_written_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::within(dir.path(), 1 << 20, 3);
        keep(&images, "0", b"0");
        let path = images.path("0").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(images.find("0").is_none());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(images.find("0").is_none());
        // Nor does a place that cannot be written stop anybody.
        let nowhere = Images::within(Path::new("/proc/nowhere"), 1 << 20, 3);
        assert!(nowhere.find("0").is_none() && nowhere.place().is_none());
    }
}
