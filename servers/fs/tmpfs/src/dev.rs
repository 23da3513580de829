//! What is in `/dev`.

use abi::proto::device::numbers;

use crate::Result;
use crate::attr::New;
use crate::store::PageStore;
use crate::tree::{BLOCK, CHAR, DIRECTORY, Tmpfs};

/// Devices: name, type and permissions, major, minor.
const NODES: [(&str, u32, u32, u32); 9] = [
    (
        "null",
        CHAR | 0o666,
        numbers::MEM_MAJOR,
        numbers::NULL_MINOR,
    ),
    (
        "zero",
        CHAR | 0o666,
        numbers::MEM_MAJOR,
        numbers::ZERO_MINOR,
    ),
    (
        "full",
        CHAR | 0o666,
        numbers::MEM_MAJOR,
        numbers::FULL_MINOR,
    ),
    (
        "random",
        CHAR | 0o666,
        numbers::MEM_MAJOR,
        numbers::RANDOM_MINOR,
    ),
    (
        "urandom",
        CHAR | 0o666,
        numbers::MEM_MAJOR,
        numbers::URANDOM_MINOR,
    ),
    ("tty", CHAR | 0o666, numbers::TTY_MAJOR, numbers::TTY_MINOR),
    (
        "ptmx",
        CHAR | 0o666,
        numbers::TTY_MAJOR,
        numbers::PTMX_MINOR,
    ),
    (
        "console",
        CHAR | 0o600,
        numbers::TTY_MAJOR,
        numbers::CONSOLE_MINOR,
    ),
    (
        "vda",
        BLOCK | 0o600,
        numbers::DISK_MAJOR,
        numbers::DISK_MINOR,
    ),
];

/// Symbolic links.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Fills an empty file system with device nodes.
pub fn populate<P: PageStore>(fs: &mut Tmpfs<P>) -> Result<()> {
    let root = fs.root();
    for (name, mode, major, minor) in NODES {
        let new = New {
            mode,
            rdev: (major << 8 | minor) as u64,
            ..New::default()
        };
        fs.create(root, name.as_bytes(), new)?;
    }
    for (name, target) in LINKS {
        fs.symlink(root, name.as_bytes(), target.as_bytes(), New::default())?;
    }
    // Pseudo-terminals are mounted over pts.
    for (name, mode) in [("shm", 0o1777), ("pts", 0o755)] {
        let new = New {
            mode: DIRECTORY | mode,
            ..New::default()
        };
        fs.create(root, name.as_bytes(), new)?;
    }
    Ok(())
}
