//! The root that is used without `--root`: directories, a few files in `/etc`, and the
//! program. Made by the guest's own file system code, in memory, without any tool of the host.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use ext2::{BlockDevice, Errno, New, Options, SECTOR, Volume, mkfs};
use rustix::fs::{MemfdFlags, memfd_create};

use super::Disk;

/// Directories that every program expects, with their permissions.
const DIRECTORIES: [(&str, u32); 9] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("sbin", 0o755),
    ("tmp", 0o1777),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
];

const FILES: [(&str, &str); 3] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hostname", "absentia\n"),
];

/// Room beside the programs, bytes.
const SPARE: u64 = 64 << 20;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;

/// A program to put on the root.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its path there.
    pub path: Cow<'a, str>,
    /// Its content.
    pub content: &'a [u8],
}

/// What stands on the root beside programs.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Empty directories.
    pub directories: Vec<String>,
    /// Symbolic links: path and target.
    pub links: Vec<(String, String)>,
    /// More of any kind, by path. They replace what every root has, and give way to programs.
    pub with: BTreeMap<String, Entry>,
}

/// What every root has: paths without a slash in front.
pub fn own<'a>() -> impl Iterator<Item = &'a str> {
    let directories = DIRECTORIES.iter().map(|directory| directory.0);
    directories.chain(FILES.iter().map(|file| file.0))
}

/// Builds the root with these programs on it; `now` is the time of everything, ns since 1970.
pub fn build(programs: &[Program<'_>], now: u64) -> Result<Disk> {
    build_with(programs, &Surroundings::default(), now)
}

/// Something on a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file with its permissions.
    File(Vec<u8>, u32),
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Link(String),
}

/// Builds a root with these entries, in their order, beside what every root has; `spare` bytes
/// stay free. The same entries give the same image, bit for bit.
pub fn build_tree(entries: &[(String, Entry)], spare: u64, now: u64) -> Result<Disk> {
    let content = entries.iter().map(|(_, entry)| match entry {
        Entry::File(content, _) => content.len().next_multiple_of(4096) as u64,
        Entry::Directory | Entry::Link(_) => 4096,
    });
    let mut root = Root::new(content.sum(), spare, now)?;
    for (path, entry) in entries {
        match entry {
            Entry::File(content, mode) => root.file(path, content, *mode)?,
            Entry::Directory => drop(root.directory(path, 0o755)?),
            Entry::Link(target) => root.link(path, target)?,
        }
    }
    root.finish()
}

/// The content of a file on an ext2 disk nobody uses; `None` where there is no such file.
pub fn read(disk: &File, path: &str) -> Result<Option<Vec<u8>>> {
    let named = || format!("{path} on the disk");
    let file = disk.try_clone().context("the disk")?;
    let sectors = file.metadata().context("the disk")?.len() / SECTOR as u64;
    let options = Options {
        read_only: true,
        ..Default::default()
    };
    let mut volume = Volume::mount(FileDisk { file, sectors }, options)
        .map_err(fail)
        .with_context(named)?;
    let mut at = ext2::ROOT;
    for name in components(path)? {
        at = match volume.lookup(at, name.as_bytes()) {
            Ok(found) => found,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(error) => return Err(fail(error)).with_context(named),
        };
    }
    let mut content = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let offset = content.len() as u64;
        let read = volume.read(at, offset, &mut piece);
        match read.map_err(fail).with_context(named)? {
            0 => return Ok(Some(content)),
            len => content.extend_from_slice(&piece[..len]),
        }
    }
}

/// [`build`] with more than programs. A link gives way to a program of its name.
pub fn build_with(programs: &[Program<'_>], surroundings: &Surroundings, now: u64) -> Result<Disk> {
    let content: u64 = programs.iter().map(|p| p.content.len() as u64).sum();
    // With an inode for each.
    let with = surroundings.with.values().map(|entry| match entry {
        Entry::File(content, _) => 8192 + content.len().next_multiple_of(4096) as u64,
        Entry::Directory | Entry::Link(_) => 8192,
    });
    let mut root = Root::new(content + with.sum::<u64>(), SPARE, now)?;
    for program in programs {
        root.file(&program.path, program.content, 0o755)?;
    }
    for (path, entry) in &surroundings.with {
        match entry {
            Entry::File(..) if programs.iter().any(|p| p.path == *path) => {}
            Entry::File(content, mode) => {
                root.remove(path)?;
                root.file(path, content, *mode)?;
            }
            Entry::Directory => drop(root.directory(path, 0o755)?),
            Entry::Link(_) => {}
        }
    }
    for path in &surroundings.directories {
        root.directory(path, 0o755)?;
    }
    for (path, target) in &surroundings.links {
        root.link(path, target)?;
    }
    for (path, entry) in &surroundings.with {
        if let Entry::Link(target) = entry {
            root.link(path, target)?;
        }
    }
    // What a shell's users take for granted, when the shell is the one that can be anything.
    let shell = programs
        .iter()
        .find(|p| p.path.rsplit('/').next() == Some("busybox"));
    if let Some(shell) = shell {
        root.link("bin/sh", &shell.path)?;
    }
    root.finish()
}

fn fail(error: impl std::fmt::Debug) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}

/// A volume, by paths.
struct Root {
    volume: Volume<FileDisk>,
}

impl Root {
    /// An empty one with room for `content` bytes and `spare` more; what every root has is on it.
    fn new(content: u64, spare: u64, now: u64) -> Result<Root> {
        let size = (content + content / 8 + spare).next_multiple_of(1 << 20);
        let fd =
            memfd_create("absentia-root", MemfdFlags::CLOEXEC).context("memfd for the root")?;
        rustix::fs::ftruncate(&fd, size).context("size of the root disk")?;
        let mut disk = FileDisk {
            file: File::from(fd),
            sectors: size / SECTOR as u64,
        };

        let now = ((now / 1_000_000_000) as i64, (now % 1_000_000_000) as i64);
        let format = mkfs::Format {
            now,
            zeroed: true,
            ..Default::default()
        };
        mkfs::format(&mut disk, &format)
            .map_err(fail)
            .context("formatting the embedded root")?;
        let options = Options {
            now,
            ..Default::default()
        };
        let volume = Volume::mount(disk, options)
            .map_err(fail)
            .context("mounting the embedded root")?;
        let mut root = Root { volume };
        for (path, mode) in DIRECTORIES {
            root.directory(path, mode)?;
        }
        for (path, content) in FILES {
            root.file(path, content.as_bytes(), 0o644)?;
        }
        Ok(root)
    }

    fn finish(self) -> Result<Disk> {
        let disk = self
            .volume
            .unmount()
            .map_err(fail)
            .context("completing the embedded root")?;
        Ok(Disk {
            snapshot: false,
            file: disk.file,
            read_only: false,
        })
    }

    /// Makes a directory and what is missing on the way to it; its inode.
    fn directory(&mut self, path: &str, mode: u32) -> Result<u32> {
        let mut at = ext2::ROOT;
        let names: Vec<&str> = components(path)?;
        for (i, name) in names.iter().enumerate() {
            let mode = if i + 1 == names.len() { mode } else { 0o755 };
            let named = || format!("/{path} on the embedded root");
            at = match self.volume.lookup(at, name.as_bytes()) {
                Ok(found) => found,
                Err(Errno::ENOENT) => {
                    let new = New {
                        mode: S_IFDIR | mode,
                        ..Default::default()
                    };
                    self.volume
                        .create(at, name.as_bytes(), new)
                        .map_err(fail)
                        .with_context(named)?
                }
                Err(error) => return Err(fail(error)).with_context(named),
            };
        }
        Ok(at)
    }

    /// The directory that holds a path's last component, and that component.
    fn parent<'p>(&mut self, path: &'p str) -> Result<(u32, &'p str)> {
        let mut names = components(path)?;
        let Some(name) = names.pop() else {
            bail!("no file name in {path:?}")
        };
        Ok((self.directory(&names.join("/"), 0o755)?, name))
    }

    fn file(&mut self, path: &str, mut content: &[u8], mode: u32) -> Result<()> {
        let named = || format!("{path} on the embedded root");
        let (parent, name) = self.parent(path)?;
        let new = New {
            mode: S_IFREG | mode,
            ..Default::default()
        };
        let file = self
            .volume
            .create(parent, name.as_bytes(), new)
            .map_err(fail)
            .with_context(named)?;
        let mut at = 0;
        while !content.is_empty() {
            let written = self
                .volume
                .write(file, at, content)
                .map_err(fail)
                .with_context(named)?;
            ensure!(written > 0, "{} does not grow", named());
            content = &content[written..];
            at += written as u64;
        }
        Ok(())
    }

    /// Removes a file, if there is one.
    fn remove(&mut self, path: &str) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        match self.volume.unlink(parent, name.as_bytes(), false) {
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(fail(error)).with_context(|| format!("{path} on the embedded root")),
        }
    }

    /// A symbolic link, unless there is something of its name.
    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        match self
            .volume
            .symlink(parent, name.as_bytes(), target.as_bytes(), New::default())
        {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(error) => Err(fail(error)).with_context(|| format!("{path} on the embedded root")),
        }
    }
}

/// The names of a path; one that leads upwards has no place on a root of ours.
fn components(path: &str) -> Result<Vec<&str>> {
    let names: Vec<&str> = path
        .split('/')
        .filter(|n| !n.is_empty() && *n != ".")
        .collect();
    ensure!(
        !names.contains(&".."),
        "{path}: a path with \"..\" in it; use --root"
    );
    Ok(names)
}

/// A block device in a file.
struct FileDisk {
    file: File,
    sectors: u64,
}

impl BlockDevice for FileDisk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn read(&mut self, sector: u64, buffer: &mut [u8]) -> ext2::Result<()> {
        self.file
            .read_exact_at(buffer, sector * SECTOR as u64)
            .map_err(|_| Errno::EIO)
    }

    fn write(&mut self, sector: u64, buffer: &[u8]) -> ext2::Result<()> {
        self.file
            .write_all_at(buffer, sector * SECTOR as u64)
            .map_err(|_| Errno::EIO)
    }

    fn flush(&mut self) -> ext2::Result<()> {
        // In memory: as stable as it gets.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_where_they_belong() {
        let content: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
        let programs = [Program {
            path: "/opt/my programs/busybox".into(),
            content: &content,
        }];
        let disk = build(&programs, 1_700_000_000_000_000_000).unwrap();
        let read = |path| read(&disk.file, path).unwrap();
        assert!(read("opt/my programs/busybox").unwrap() == content);
        assert!(read("etc/passwd").unwrap().starts_with(b"root:"));
        assert_eq!(read("etc/passwd/x"), None);
    }

    #[test]
    fn the_same_entries_give_the_same_image() {
        let entries = [
            ("/work/a".to_string(), Entry::File(b"one".to_vec(), 0o600)),
            ("/work/empty".into(), Entry::Directory),
            ("/work/b".into(), Entry::Link("a".into())),
        ];
        let image = || {
            let disk = build_tree(&entries, 4 << 20, 1_700_000_000_000_000_000).unwrap();
            let mut bytes = vec![0; disk.file.metadata().unwrap().len() as usize];
            disk.file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(image() == image());
    }

    #[test]
    fn the_root_is_what_e2fsck_expects() {
        use std::os::fd::AsRawFd;
        let disk = build(
            &[Program {
                path: "/bin/busybox".into(),
                content: b"x",
            }],
            0,
        )
        .unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), disk.file.as_raw_fd());
        let fsck = ["/usr/sbin/e2fsck", "/sbin/e2fsck"]
            .into_iter()
            .find(|p| std::fs::exists(p).unwrap_or(false))
            .expect("this test needs e2fsck: install the package e2fsprogs");
        let output = std::process::Command::new(fsck)
            .args(["-fn", &path])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }

    #[test]
    fn paths_stay_inside() {
        assert!(
            build(
                &[Program {
                    path: "/../x".into(),
                    content: b""
                }],
                0
            )
            .is_err()
        );
        assert!(
            build(
                &[Program {
                    path: "/".into(),
                    content: b""
                }],
                0
            )
            .is_err()
        );
    }
}
