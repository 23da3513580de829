//! Modes: what a file of /proc is, and whom it lets do what.

use abi::fs::S_IFREG;
pub use abi::fs::{S_IFDIR, S_IFLNK, S_IFMT};

use linux_raw_sys::general::{O_ACCMODE, O_PATH, O_RDWR, O_WRONLY};

use crate::tree::{Global, Item};

/// The permissions of /proc/PID/fd/N say how the file is open.
pub fn descriptor_mode(flags: u64) -> u32 {
    if flags & u64::from(O_PATH) != 0 {
        return 0;
    }
    match (flags & u64::from(O_ACCMODE)) as u32 {
        O_RDWR => 0o700,
        O_WRONLY => 0o300,
        _ => 0o500,
    }
}

/// Type and permissions of a file that is of no process.
pub fn global_mode(what: Global) -> u32 {
    match what {
        Global::Directory => S_IFDIR | 0o555,
        Global::SelfLink | Global::ThreadSelf | Global::Link(_) => S_IFLNK | 0o777,
        Global::DropCaches | Global::Crash => S_IFREG | 0o200,
        Global::ExecBackend
        | Global::ExecTrace
        | Global::Tunable(_)
        | Global::MapMax
        | Global::PtyMax => S_IFREG | 0o644,
        _ => S_IFREG | 0o444,
    }
}

/// Type and permissions of a file of a process.
pub fn item_mode(item: Item) -> u32 {
    match item {
        Item::Directory | Item::Tasks => S_IFDIR | 0o555,
        Item::DescriptorInfos => S_IFDIR | 0o555,
        Item::Descriptors => S_IFDIR | 0o500,
        Item::Exe | Item::Cwd | Item::Root => S_IFLNK | 0o777,
        Item::Descriptor => S_IFLNK | 0o700,
        Item::Environ | Item::Auxv => S_IFREG | 0o400,
        Item::ExecFault | Item::Memory => S_IFREG | 0o600,
        Item::OomAdjust => S_IFREG | 0o644,
        _ => S_IFREG | 0o444,
    }
}
