//! Names and inode numbers.
//!
//! The entries that belong to no process stand in [`GLOBAL`]; an inode number below 2^32 is an
//! index into it plus one. The others say what they are: process id in the high half, then
//! the [`Item`], then a descriptor number, with a bit for what was reached through task/TID.

use Global as G;
use abi::proto::pm::identity;
use abi::tunable;

/// The root's inode number.
pub const ROOT: u64 = 1;

/// What a global entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Global {
    Directory,
    /// Symbolic link to the reader's directory.
    SelfLink,
    ThreadSelf,
    /// Symbolic link.
    Link(&'static str),
    /// The same text at any time.
    Text(&'static str),
    /// The same line at any time.
    Line(&'static str),
    Meminfo,
    Cpuinfo,
    Uptime,
    Loadavg,
    Stat,
    Version,
    CommandLine,
    Vmstat,
    Randomize,
    Uuid,
    BootId,
    Counters,
    /// The owners of memory.
    Frames,
    /// Written to drop caches.
    DropCaches,
    /// What was done since boot.
    Work,
    /// How programs are loaded; can be written.
    ExecBackend,
    /// A limit of VFS's ([`abi::tunable`]), which can be set.
    Tunable(u32),
    /// Open files, free ones (none), and how many there may be.
    FileNr,
    /// How many regions an address space may have; can be set.
    MapMax,
    /// How many pseudo-terminals there may be; can be set.
    PtyMax,
    /// Of these, for root alone.
    PtyReserve,
    /// How many there are.
    PtyCount,
    /// Where the last exec's time went; writing switches it.
    ExecTrace,
    /// Written to see a service die.
    Crash,
}

/// A global entry: its directory's index, its name, what it is.
pub type Entry = (usize, &'static str, Global);

const SYS: usize = 1;
const SYS_KERNEL: usize = 2;
const SYS_RANDOM: usize = 3;
const SYS_VM: usize = 4;
const SYS_FS: usize = 5;
const ABSENTIA: usize = 6;
const SYS_EPOLL: usize = 7;
const SYS_PTY: usize = 8;

/// All entries outside the processes. The root is its own directory; directories stand first.
pub const GLOBAL: &[Entry] = &[
    (0, "", G::Directory),
    (0, "sys", G::Directory),
    (SYS, "kernel", G::Directory),
    (SYS_KERNEL, "random", G::Directory),
    (SYS, "vm", G::Directory),
    (SYS, "fs", G::Directory),
    (0, "absentia", G::Directory),
    (SYS_FS, "epoll", G::Directory),
    (SYS_KERNEL, "pty", G::Directory),
    (ABSENTIA, "counters", G::Counters),
    (ABSENTIA, "frames", G::Frames),
    (ABSENTIA, "work", G::Work),
    (ABSENTIA, "exec-backend", G::ExecBackend),
    (ABSENTIA, "exec-trace", G::ExecTrace),
    (ABSENTIA, "crash", G::Crash),
    (0, "self", G::SelfLink),
    (0, "thread-self", G::ThreadSelf),
    (0, "mounts", G::Link("self/mounts")),
    (0, "meminfo", G::Meminfo),
    (0, "cpuinfo", G::Cpuinfo),
    (0, "uptime", G::Uptime),
    (0, "loadavg", G::Loadavg),
    (0, "stat", G::Stat),
    (0, "vmstat", G::Vmstat),
    (0, "version", G::Version),
    (0, "cmdline", G::CommandLine),
    (
        0,
        "filesystems",
        G::Text("nodev\tproc\nnodev\ttmpfs\n\text2\n"),
    ),
    (
        0,
        "devices",
        G::Text(
            "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n240 hoststream\n\n\
             Block devices:\n",
        ),
    ),
    (0, "partitions", G::Text("major minor  #blocks  name\n\n")),
    (
        0,
        "swaps",
        G::Text("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"),
    ),
    (0, "diskstats", G::Text("")),
    (0, "modules", G::Text("")),
    (SYS_KERNEL, "ostype", G::Line("Linux")),
    (SYS_KERNEL, "osrelease", G::Line(identity::RELEASE)),
    (SYS_KERNEL, "version", G::Line(identity::VERSION)),
    (SYS_KERNEL, "hostname", G::Line(identity::NODENAME)),
    (SYS_KERNEL, "domainname", G::Line(identity::DOMAINNAME)),
    (SYS_KERNEL, "pid_max", G::Line("32768")),
    (SYS_KERNEL, "threads-max", G::Line("256")),
    (SYS_KERNEL, "ngroups_max", G::Line("65536")),
    (SYS_KERNEL, "cap_last_cap", G::Line("40")),
    (SYS_KERNEL, "randomize_va_space", G::Randomize),
    (SYS_PTY, "max", G::PtyMax),
    (SYS_PTY, "reserve", G::PtyReserve),
    (SYS_PTY, "nr", G::PtyCount),
    (SYS_RANDOM, "uuid", G::Uuid),
    (SYS_RANDOM, "boot_id", G::BootId),
    (SYS_RANDOM, "entropy_avail", G::Line("256")),
    (SYS_RANDOM, "poolsize", G::Line("256")),
    (SYS_VM, "overcommit_memory", G::Line("0")),
    (SYS_VM, "max_map_count", G::MapMax),
    (SYS_VM, "drop_caches", G::DropCaches),
    (SYS_FS, "file-max", G::Tunable(tunable::FILE_MAX)),
    (SYS_FS, "file-nr", G::FileNr),
    (SYS_FS, "nr_open", G::Line("4096")),
    (SYS_FS, "mount-max", G::Tunable(tunable::MOUNT_MAX)),
    (SYS_FS, "pipe-max-size", G::Tunable(tunable::PIPE_MAX_SIZE)),
    (
        SYS_FS,
        "pipe-user-pages-soft",
        G::Tunable(tunable::PIPE_USER_PAGES_SOFT),
    ),
    (
        SYS_FS,
        "pipe-user-pages-hard",
        G::Tunable(tunable::PIPE_USER_PAGES_HARD),
    ),
    (
        SYS_FS,
        "protected_hardlinks",
        G::Tunable(tunable::PROTECTED_HARDLINKS),
    ),
    (
        SYS_FS,
        "protected_symlinks",
        G::Tunable(tunable::PROTECTED_SYMLINKS),
    ),
    (
        SYS_FS,
        "protected_fifos",
        G::Tunable(tunable::PROTECTED_FIFOS),
    ),
    (
        SYS_FS,
        "protected_regular",
        G::Tunable(tunable::PROTECTED_REGULAR),
    ),
    (
        SYS_EPOLL,
        "max_user_watches",
        G::Tunable(tunable::MAX_USER_WATCHES),
    ),
];

/// What an entry of a process's directory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Item {
    /// The process's directory, or task/TID.
    Directory = 1,
    Stat,
    Status,
    Cmdline,
    Comm,
    Exe,
    Cwd,
    Root,
    /// The directory of descriptors.
    Descriptors,
    /// One of them.
    Descriptor,
    /// The directory of what is known of descriptors.
    DescriptorInfos,
    /// One of them.
    DescriptorInfo,
    Maps,
    Statm,
    Mounts,
    MountInfo,
    Environ,
    /// The directory of threads.
    Tasks,
    /// Makes a step of an exec fail.
    ExecFault,
    /// The auxiliary vector.
    Auxv,
    /// Its memory.
    Memory,
    /// What it is worth when memory is used up.
    OomScore,
    /// The adjustment of that.
    OomAdjust,
}

/// The entries of a process's directory. In task/TID the last is missing.
pub const PROCESS: &[(&str, Item)] = &[
    ("stat", Item::Stat),
    ("status", Item::Status),
    ("cmdline", Item::Cmdline),
    ("comm", Item::Comm),
    ("exe", Item::Exe),
    ("cwd", Item::Cwd),
    ("root", Item::Root),
    ("fd", Item::Descriptors),
    ("fdinfo", Item::DescriptorInfos),
    ("maps", Item::Maps),
    ("statm", Item::Statm),
    ("mounts", Item::Mounts),
    ("mountinfo", Item::MountInfo),
    ("environ", Item::Environ),
    ("auxv", Item::Auxv),
    ("mem", Item::Memory),
    ("oom_score", Item::OomScore),
    ("oom_score_adj", Item::OomAdjust),
    ("exec-fault", Item::ExecFault),
    ("task", Item::Tasks),
];

const ITEMS: &[Item] = &[
    Item::Directory,
    Item::Stat,
    Item::Status,
    Item::Cmdline,
    Item::Comm,
    Item::Exe,
    Item::Cwd,
    Item::Root,
    Item::Descriptors,
    Item::Descriptor,
    Item::DescriptorInfos,
    Item::DescriptorInfo,
    Item::Maps,
    Item::Statm,
    Item::Mounts,
    Item::Environ,
    Item::Tasks,
    Item::ExecFault,
    Item::OomScore,
    Item::OomAdjust,
    Item::MountInfo,
    Item::Auxv,
    Item::Memory,
];

/// An inode number taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inode {
    /// Index into [`GLOBAL`].
    Global(usize),
    /// Something of a process.
    Process(OfProcess),
}

/// Something of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OfProcess {
    /// Whose; with `task` the thread.
    pub pid: u32,
    /// What.
    pub item: Item,
    /// Reached through task/TID.
    pub task: bool,
    /// Descriptor.
    pub fd: u32,
    /// Which memory image it had when the file was looked up, for what shows that alone
    /// ([`Item::is_of_image`]): the lowest [`IMAGE_BITS`] of its number. Else 0.
    pub image: u64,
}

// An inode number, from its lowest bit on: descriptor, task or not, item, process, image.
const TASK: u64 = 1 << 13;
const FD_MASK: u64 = TASK - 1;
const ITEM_SHIFT: u32 = 14;
const ITEM_MASK: u64 = 0x3f;
const PID_SHIFT: u32 = 20;
const PID_MASK: u64 = 0xffff;
const IMAGE_SHIFT: u32 = 36;
/// How much of an image's number an inode number has room for.
pub const IMAGE_BITS: u32 = 64 - IMAGE_SHIFT;

impl Item {
    /// Whether the file shows the memory that the process had when it was looked up, and nothing
    /// once that is gone: what was opened before an exec says nothing of the new program.
    pub fn is_of_image(self) -> bool {
        matches!(self, Item::Maps | Item::Environ | Item::Auxv | Item::Memory)
    }
}

impl Inode {
    /// The inode with this number.
    pub fn from_number(ino: u64) -> Option<Inode> {
        let pid = (ino >> PID_SHIFT & PID_MASK) as u32;
        if pid == 0 {
            let index = usize::try_from(ino.checked_sub(1)?).ok()?;
            return (index < GLOBAL.len()).then_some(Inode::Global(index));
        }
        let number = ino >> ITEM_SHIFT & ITEM_MASK;
        let item = *ITEMS.iter().find(|&&item| item as u64 == number)?;
        let (task, fd) = (ino & TASK != 0, (ino & FD_MASK) as u32);
        Some(Inode::Process(OfProcess {
            pid,
            item,
            task,
            fd,
            image: ino >> IMAGE_SHIFT,
        }))
    }

    /// Its number.
    pub fn number(self) -> u64 {
        match self {
            Inode::Global(index) => index as u64 + 1,
            Inode::Process(OfProcess {
                pid,
                item,
                task,
                fd,
                image,
            }) => {
                let task = if task { TASK } else { 0 };
                let of = image << IMAGE_SHIFT | (pid as u64 & PID_MASK) << PID_SHIFT;
                of | (item as u64) << ITEM_SHIFT | task | (fd as u64 & FD_MASK)
            }
        }
    }
}

impl OfProcess {
    /// The process's directory.
    pub fn directory(pid: u32) -> OfProcess {
        OfProcess {
            pid,
            item: Item::Directory,
            task: false,
            fd: 0,
            image: 0,
        }
    }

    /// Another item of the same directory.
    pub fn with(self, item: Item) -> OfProcess {
        OfProcess { item, ..self }
    }
}

/// A process id or descriptor in its one way of writing it.
pub fn decimal(name: &[u8]) -> Option<u32> {
    let plain =
        name.iter().all(u8::is_ascii_digit) && (name.len() == 1 || name.first() != Some(&b'0'));
    let text = core::str::from_utf8(name).ok().filter(|_| plain)?;
    text.parse().ok()
}
