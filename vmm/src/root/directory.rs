//! `--root DIR`: an ext2 image of a directory, made by `mke2fs -d`.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Disk;

/// Free space of the image beyond a fifth of the content.
const SPARE: u64 = 64 << 20;

/// Makes the image, in a temporary file that vanishes with the returned disk.
pub fn image_of(dir: &Path) -> Result<Disk> {
    let size = size_of_tree(dir).with_context(|| format!("--root {}", dir.display()))?;
    let size = (size + size / 5 + SPARE).next_multiple_of(1 << 20);
    let image = tempfile::Builder::new().prefix("absentia-root-").tempfile();
    let image = image.context("temporary file for the root disk")?;
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
    let file = File::options().read(true).write(true).open(image.path());
    let file = file.context("opening the root disk")?;
    Ok(Disk {
        file,
        read_only: false,
    })
}

/// `mke2fs`, also where the path of an ordinary user does not name it.
fn mke2fs() -> Command {
    let beside = ["/usr/sbin/mke2fs", "/sbin/mke2fs"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    Command::new(beside.unwrap_or("mke2fs"))
}

/// Bytes the tree takes in blocks of 4 KiB, an inode for every entry included.
fn size_of_tree(dir: &Path) -> Result<u64> {
    let mut total = 0;
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        let named = || dir.display().to_string();
        for entry in std::fs::read_dir(&dir).with_context(named)? {
            let entry = entry.with_context(named)?;
            let metadata = entry.metadata().with_context(named)?;
            total += 256;
            if metadata.is_dir() {
                total += 4096;
                todo.push(entry.path());
            } else if metadata.is_file() {
                total += metadata.size().next_multiple_of(4096);
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_becomes_an_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::write(dir.path().join("bin/file"), vec![1; 100_000]).unwrap();
        match image_of(dir.path()) {
            Ok(disk) => assert!(disk.file.metadata().unwrap().len() >= SPARE),
            Err(error) => assert!(error.to_string().contains("e2fsprogs"), "{error:#}"),
        }
    }
}
