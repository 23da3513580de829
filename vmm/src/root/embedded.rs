//! The root that is used without `--root`: directories, a few files in `/etc`, and the
//! program.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Disk, directory};

/// Directories that every program expects.
const DIRECTORIES: [&str; 8] = ["bin", "dev", "etc", "proc", "root", "sbin", "tmp", "usr/bin"];

const FILES: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hostname", "absentia\n"),
];

/// A program to put on the root.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its path there, absolute.
    pub path: &'a str,
    /// Its content.
    pub content: &'a [u8],
}

/// Builds the root with these programs on it.
pub fn build(programs: &[Program<'_>]) -> Result<Disk> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let stage = tempfile::tempdir().context("directory for the embedded root")?;
    for dir in DIRECTORIES {
        std::fs::create_dir_all(stage.path().join(dir)).context("embedded root")?;
    }
    for (path, content) in FILES {
        std::fs::write(stage.path().join(path), content).context("embedded root")?;
    }
    for program in programs {
        let path = stage.path().join(program.path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).context("embedded root")?;
        }
        std::fs::write(&path, program.content).context("embedded root")?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).context("embedded root")?;
        let shell = stage.path().join("bin/sh");
        if Path::new(program.path).file_name().is_some_and(|n| n == "busybox") && !shell.exists() {
            symlink(program.path, shell).context("embedded root")?;
        }
    }
    directory::image_of(stage.path())
}
