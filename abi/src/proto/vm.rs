//! Requests to VM. All are calls unless marked *posted*. Linux memory calls (mmap, munmap,
//! mprotect, brk, madvise, mremap, msync, mincore) arrive as [`crate::Class::Linux`].

use crate::message::Word;
use crate::{Endpoint, Errno, protocol};

bitflags::bitflags! {
    /// Access to mapped pages, as Linux's PROT_*.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Prot: u64 {
        /// Readable.
        const READ = 1;
        /// Writable.
        const WRITE = 2;
        /// Executable.
        const EXEC = 4;
    }
}

bitflags::bitflags! {
    /// How to map.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MapFlags: u64 {
        /// Exactly at the address; unmaps whatever overlaps.
        const FIXED = 1;
        /// Populate now (zeroed).
        const PREALLOC = 2;
        /// Contents of populated pages do not matter (VFS and RS only).
        const UNINITIALIZED = 4;
        /// The target is another process (VFS and RS only).
        const THIRD_PARTY = 8;
        /// Grows downwards on faults below it, to the stack limit.
        const STACK = 16;
        /// A file system's cache: what [`Populate`] puts there leaves free what programs may need next, and is asked
        /// back ([`crate::proto::vfs::GiveBack`]) when they need more (file systems only).
        const CACHE = 32;
    }
}

macro_rules! word_flags {
    ($($t:ty),*) => {$(
        impl Word for $t {
            fn to_word(self) -> u64 { self.bits() }
            fn from_word(word: u64) -> Option<Self> { Self::from_bits(word) }
        }
    )*};
}
word_flags!(Prot, MapFlags);

/// [`ProcCtl`] parameter: frees all regions and page tables, binds fresh ones (RS, VFS). A
/// process that shares its space (vfork) is detached from it.
pub const PROCCTL_CLEAR: u64 = 1;

/// The most calls of a [`Batch`].
pub const BATCH_MAX: u64 = 64;
/// [`Object::dev`] of memory that no other address space can reach.
pub const PRIVATE_OBJECT: u64 = u64::MAX;

protocol! {
    base = 0x1000;
    servers = [VM];

    /// Anonymous memory in `target` (`SELF` or, with THIRD_PARTY, another). Length 0:
    /// `EINVAL`; dead target: `ESRCH`; no right: `EPERM`; no room: `ENOMEM`.
    #[from(SERVICES)]
    call Mmap = 1 {
        /// Whose memory.
        target: Endpoint,
        /// Hint, or the address with FIXED. Page aligned.
        addr: u64,
        /// Bytes; rounded up to pages.
        len: u64,
        /// Access.
        prot: Prot,
        /// How.
        flags: MapFlags,
    } -> Mapped {
        /// First byte.
        addr: u64,
    };
    /// Removes mappings of `target` (like Linux munmap).
    #[from(SERVICES)]
    call Munmap = 2 {
        /// Whose memory.
        target: Endpoint,
        /// Page aligned.
        addr: u64,
        /// Bytes.
        len: u64,
    };
    /// Maps file pages privately and fixed into `target` (VFS only). Cached pages are
    /// entered at once. The mapping holds a reference that VM gives back with
    /// [`crate::proto::vfs::MapClose`]; VFS takes it before it asks, and keeps it when the
    /// call fails.
    #[from(VFS)]
    call VfsMmap = 3 {
        /// Whose memory.
        target: Endpoint,
        /// Device of the file system.
        dev: u64,
        /// Inode.
        ino: u64,
        /// File offset, page aligned.
        offset: u64,
        /// Address, page aligned.
        addr: u64,
        /// Bytes, page multiple.
        len: u64,
        /// Low 3 bits [`Prot`]; from bit 16 `clearend`: bytes to clear at the end of the last
        /// page.
        prot_clearend: u64,
    };
    /// See [`PROCCTL_CLEAR`]. Bad endpoint or param: `EINVAL`; other callers: `EPERM`.
    #[from(VFS, RS)]
    call ProcCtl = 4 {
        /// The operation.
        param: u64,
        /// The process.
        who: Endpoint,
    };
    /// Makes `[addr, addr + len)` of `who` present, writable when
    /// `write`, as far as it goes. For the rest, or for all: `EFAULT` (no region, read-only and write wanted, behind the end of a file), `EIO`, `ENOMEM`,
    /// `ESRCH`.
    #[from(VFS)]
    ask HandleMemory = 5 {
        /// The process.
        who: Endpoint,
        /// First byte.
        addr: u64,
        /// Bytes.
        len: u64,
        /// Will be written.
        write: bool,
    } -> Present {
        /// Bytes of its beginning that are usable: up to the first page that is not.
        good: u64,
        /// What is wrong with that page.
        status: Result<(), Errno>,
    };
    /// A device window or other physical memory, uncached, in the caller. `EPERM` unless RS
    /// allowed it.
    #[from(RS, VIRTIO)]
    call MapPhysical = 6 {
        /// Physical address, page aligned.
        phys: u64,
        /// Bytes, page multiple.
        len: u64,
    } -> MappedPhysical {
        /// First byte.
        addr: u64,
    };
    /// Lets `target` map a physical range (RS only).
    #[from(RS)]
    call AllowPhysical = 7 {
        /// The driver.
        target: Endpoint,
        /// First byte.
        phys: u64,
        /// Bytes.
        len: u64,
    };
    /// Zeroed, physically contiguous, wired memory for device rings and buffers.
    #[from(VIRTIO)]
    call AllocContiguous = 8 {
        /// Bytes.
        len: u64,
    } -> Contiguous {
        /// Address in the caller.
        addr: u64,
        /// Physical address.
        phys: u64,
    };
    /// The address space of a forked process (PM only): copy on write, or with `share` the
    /// same space (vfork). The child has no space yet. `ENOMEM`.
    #[from(PM)]
    call Fork = 9 {
        /// Parent.
        parent: Endpoint,
        /// Child.
        child: Endpoint,
        /// Share instead of copy.
        share: bool,
    };
    /// A process is gone: free its space (PM and RS only). Sent before the kernel destroys
    /// the process.
    #[from(PM, RS)]
    call Exit = 10 {
        /// The process.
        who: Endpoint,
    };
    /// A new process's empty space (RS and PM only). `service` marks a system service.
    #[from(PM, RS)]
    call NewSpace = 11 {
        /// The process.
        who: Endpoint,
        /// Whether it is a system service.
        service: bool,
    };
    /// Sets where brk starts and where mappings go after an exec (VFS and RS only).
    #[from(VFS, RS)]
    call SetBreak = 12 {
        /// The process.
        who: Endpoint,
        /// First address of the heap; page aligned up by VM.
        start: u64,
        /// Mappings go below this page multiple.
        mmap_top: u64,
    };
    /// Puts the caller's page at `addr` into the cache as page `offset` of (dev, ino), shared
    /// from now on with all who map it. Replaces an older page of that name.
    #[from(FILES)]
    call CacheSet = 13 {
        /// Page in the caller, present, anonymous or already that cache page.
        addr: u64,
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
        /// File offset, page aligned.
        offset: u64,
    };
    /// Maps a cached page at `addr` of the caller (replacing what is there). `ENOENT`.
    #[from(FILES)]
    call CacheMap = 14 {
        /// Page in the caller, page aligned.
        addr: u64,
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
        /// File offset, page aligned.
        offset: u64,
    };
    /// Takes the pages of a file between `offset`, rounded up to a page, and `end` from the cache and
    /// from all who map them; who touches the memory next faults, and the file system is asked.
    /// Private copies go too where the file ends (truncation, free of an inode), and stay where
    /// it goes on (a hole). Of a whole device, whose file system is gone or begins, all private
    /// mappings stay.
    #[from(FILES, VFS)]
    call CacheForget = 15 {
        /// Device.
        dev: u64,
        /// Inode; `u64::MAX` for all of the device.
        ino: u64,
        /// First file offset.
        offset: u64,
        /// One past the last, page aligned; `u64::MAX` where the file ends.
        end: u64,
    };
    /// Gives the caller a private page at `addr` instead of one that is in the cache, contents
    /// undefined, so that the caller may reuse the address for another file page.
    #[from(FILES)]
    call CacheRelease = 16 {
        /// Page in the caller.
        addr: u64,
    };
    /// Size of a process's memory.
    #[from(SERVICES)]
    call SpaceInfo = 19 {
        /// The process.
        who: Endpoint,
    } -> SpaceFigures {
        /// Bytes mapped.
        size: u64,
        /// Bytes resident.
        resident: u64,
        /// Bytes of it shared with the cache or another process.
        shared: u64,
        /// Current break.
        brk: u64,
    };
    /// What would come free if a process ended: its part of each page that is not only cached,
    /// page tables, and what VM notes of it.
    #[from(PM)]
    call Footprint = 48 {
        /// The process.
        who: Endpoint,
    } -> FootprintFigures {
        /// Bytes.
        bytes: u64,
        /// Bytes of all memory.
        total: u64,
    };
    /// VM's own counters (leak checks, /proc/meminfo).
    #[from(SERVICES)]
    call VmCounters = 20 {} -> VmFigures {
        /// Bytes of all memory VM manages.
        total: u64,
        /// Free bytes.
        free: u64,
        /// Bytes in the page cache and in file systems' caches.
        cached: u64,
        /// Address spaces.
        spaces: u64,
        /// Regions of programs: those of services' heaps come and go, and their frames are counted.
        regions: u64,
        /// Requests that wait for VFS.
        waiting: u64,
        /// Frames in use by processes and page tables.
        used_frames: u64,
    };
    /// Copies region `index` of `who` as [`RegionInfo`] to the caller's `buffer`
    /// (`/proc/PID/maps`). `ENOENT` past the last.
    #[from(SERVICES)]
    call RegionAt = 21 {
        /// The process.
        who: Endpoint,
        /// Index in address order.
        index: u64,
    } -> RegionInfo {
        /// First byte.
        start: u64,
        /// One past the last.
        end: u64,
        /// [`Prot`] bits; bit 8 shared; bit 9 stack; bit 10 heap; bit 11 file.
        flags: u64,
        /// Device of a file mapping.
        dev: u64,
        /// Inode of a file mapping.
        ino: u64,
        /// File offset.
        offset: u64,
    };
    /// PM tells the limits that VM enforces.
    #[from(PM)]
    call SetLimits = 22 {
        /// The process.
        who: Endpoint,
        /// RLIMIT_STACK, bytes.
        stack: u64,
        /// RLIMIT_DATA, bytes.
        data: u64,
        /// RLIMIT_AS, bytes.
        address_space: u64,
        /// RLIMIT_MEMLOCK, bytes; `u64::MAX` for who may lock as much as there is.
        locked: u64,
    };
    /// Changes the access of mapped memory in `target` (VFS and RS only): what exec does to
    /// memory that it filled by copying. `ENOMEM` where nothing is mapped, `ESRCH`, `EPERM`.
    #[from(VFS, RS)]
    call Protect = 23 {
        /// Whose memory.
        target: Endpoint,
        /// Page aligned.
        addr: u64,
        /// Bytes; rounded up to pages.
        len: u64,
        /// Access.
        prot: Prot,
    };
    /// Tell the sender by
    /// [`crate::proto::vfs::PagesWritten`] what shared mappings have
    /// changed of (dev, ino) so far, then answer.
    #[from(VFS, RS)]
    ask CollectWritten = 24 {
        /// Device.
        dev: u64,
        /// Inode; 0 for all of the device.
        ino: u64,
    };
    /// A file system knows all that shared mappings had changed of `[offset, offset + len)` of a
    /// file when [`crate::proto::vfs::PagesWritten`] was posted: those pages are no longer the
    /// only copy and may be dropped.
    #[from(FILES)]
    call CacheClean = 25 {
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
        /// File offset, page aligned.
        offset: u64,
        /// Bytes.
        len: u64,
    };
    /// Gives back the caller's pages in `[addr, addr + len)`, anonymous memory of a service,
    /// published or not. Before it uses them again, it calls [`Populate`].
    #[from(FILES)]
    call Discard = 26 {
        /// Page aligned.
        addr: u64,
        /// Bytes.
        len: u64,
    };
    /// Puts pages, contents undefined, where there are none in `[addr, addr + len)`, one
    /// anonymous mapping of a service; as many from the first on as there is memory for. `ENOMEM` when that is none.
    #[from(FILES)]
    call Populate = 30 {
        /// Page aligned.
        addr: u64,
        /// Bytes.
        len: u64,
        /// Also of a [cache](MapFlags::CACHE): with these the service works at all, so that they come
        /// from what programs leave to services.
        needed: bool,
    } -> Populated {
        /// Pages from the first on that are there now.
        pages: u64,
    };
    /// Drops every cached page that nobody maps and that is not the only copy of its contents
    /// (VFS only; file systems have [discarded](Discard) theirs).
    #[from(VFS)]
    call DropCaches = 27 {} -> Dropped {
        /// Pages.
        pages: u64,
    };
    /// Who owns the frames. Every frame that VM manages is free ([`VmFigures::free`]) or owned by
    /// exactly one of these. `EIO` when VM's data contradict each other.
    #[from(SERVICES)]
    call VmFrames = 28 {} -> FrameFigures {
        /// VM's heap.
        heap: u64,
        /// Page tables.
        tables: u64,
        /// The page cache. A page that somebody maps counts here only.
        cached: u64,
        /// Memory of services.
        services: u64,
        /// Memory of programs. What several share counts once.
        programs: u64,
        /// All frames.
        total: u64,
        /// References to frames that nobody has: leaks. A frame whose last one it is is none of
        /// the above, and never free again.
        lost: u64,
    };
    /// The frames of the first service from a process slot on: its part of
    /// [`FrameFigures::services`]. `ENOENT` past the last.
    #[from(SERVICES)]
    call ServiceFrames = 29 {
        /// Process slot.
        slot: u64,
    } -> OwnedFrames {
        /// The service's slot.
        slot: u64,
        /// Frames.
        frames: u64,
    };
    /// Which pages of a file, of up to 64 from `offset` on, are in the cache (services only).
    #[from(FILES)]
    call CachePages = 32 {
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
        /// First file offset, page aligned.
        offset: u64,
    } -> PagesCached {
        /// A bit for each page, the first in bit 0.
        pages: u64,
        /// Whether any page of the file is, wherever.
        any: bool,
    };
    /// [`CacheSet`] for `count` pages, in a row in the caller as in the file, up to the first that
    /// cannot be put into the cache.
    #[from(FILES)]
    call CacheSetRun = 33 {
        /// The first page in the caller.
        addr: u64,
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
        /// File offset of the first page, page aligned.
        offset: u64,
        /// Pages.
        count: u64,
    } -> CacheRun {
        /// Pages that are in the cache.
        done: u64,
    };
    /// Reads, or with `write` writes, up to eight bytes of one page of a process, whatever the
    /// protection is (PM only, for debuggers). A write to private memory that cannot be written
    /// goes to a copy of the page that only this space has; to shared memory it is `EFAULT`.
    /// `EAGAIN` when a page of a file is not there.
    #[from(PM)]
    call Force = 34 {
        /// The process.
        who: Endpoint,
        /// First byte.
        address: u64,
        /// Bytes: 1 to 8, in one page.
        len: u64,
        /// Whether to write.
        write: bool,
        /// What to write, the first byte lowest.
        value: u64,
    } -> Forced {
        /// What is there now.
        value: u64,
    };
    /// The most regions of an address space (vm/max_map_count).
    #[from(PROC)]
    call MapMax = 35 {} -> MapMaxNow {
        /// How many.
        regions: u64,
    };
    /// Sets it; spaces that have more keep them.
    #[from(PROC)]
    call SetMapMax = 36 {
        /// How many.
        regions: u64,
    };
    /// Which object an address means, whatever is present of it: what names a shared futex (PM
    /// only). `EFAULT` where nothing may be read, or in private memory that is never written;
    /// `ESRCH`.
    #[from(PM)]
    call ObjectAt = 38 {
        /// The process.
        who: Endpoint,
        /// The address.
        address: u64,
    } -> Object {
        /// Device of the file or of shared anonymous memory; [`PRIVATE_OBJECT`] where the memory
        /// is the address space's own.
        dev: u64,
        /// Inode.
        ino: u64,
        /// Offset of the byte at the address.
        offset: u64,
    };
    /// Calls of this protocol by a service, made in order up to the first that fails:
    /// `count` [`crate::Message`]s at `address` of the caller, which is resident and aligned
    /// to 8 bytes. `EFAULT` where it is not.
    #[from(VFS)]
    call Batch = 40 {
        /// The first.
        address: u64,
        /// How many, at most [`BATCH_MAX`].
        count: u64,
    } -> BatchDone {
        /// How many succeeded.
        done: u64,
        /// What the next said.
        status: Result<(), Errno>,
    };
}
