//! The kernel's own interface: IPC traps, kernel calls, register frames, layout.
//!
//! A trap's number is in rax. IPC traps carry a [`crate::Message`] in registers; kernel
//! calls carry up to six arguments in rdi rsi rdx r8 r9 r10 and return in rax a value or a
//! negated errno. rcx and r11 do not survive a trap.

mod boot_info;
mod fault;

pub use boot_info::{BootInfo, HEAP_PIECE, PROGRAMS_MEMORY_MIN, SERVICES_MEMORY, Span};
pub use fault::{Exception, PageFault, vector};

use crate::{Errno, PAGE};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// ---- Address-space layout -------------------------------------------------------------

/// User addresses are below this (the last page of the lower half stays unmapped).
pub const USER_END: u64 = 0x0000_7fff_ffff_f000;
/// The kernel's and VM's view of physical memory never exceeds this, bytes: what an entry of the topmost table covers.
pub const PHYSICAL_MAX: u64 = 512 << 30;
/// Physical addresses that are never used as RAM. Devices' registers lie below its end.
pub const HOLE: core::ops::Range<u64> = 3 << 30..4 << 30;
/// Where VM sees physical memory: guest-physical `p` is at `VM_WINDOW + p`.
pub const VM_WINDOW: u64 = 0x0000_1000_0000_0000;
/// The trampoline page, mapped executable in every address space.
pub const TRAMPOLINE: u64 = 0xffff_ffff_ffe0_0000;
/// Entry of IPC traps and kernel calls: `call` this address.
pub const TRAMPOLINE_TRAP: u64 = TRAMPOLINE;

// ---- Interrupts -----------------------------------------------------------------------

/// Interrupt lines that are pins of the IOAPIC. The lines behind them are raised by messages only.
pub const PINS: u32 = 24;
/// Interrupt lines that [`Kcall::IrqBind`] knows.
pub const LINES: u32 = 30;
/// Vector of line 0; the others follow.
pub const VECTOR_LINES: u32 = 33;

/// The message that raises a line, as a device's MSI-X table has it: a physical address (the local
/// APIC of processor 0) and what is written there (an edge).
pub const fn message_of(line: u32) -> (u64, u32) {
    (0xfee0_0000, VECTOR_LINES + line)
}

// ---- IPC traps ------------------------------------------------------------------------

/// IPC operations, the trap number in rax.
///
/// In: rdi the peer, rsi the receive filter where there are both. Out: rax 0 or a negated
/// errno, rdi the source, rsi the [`crate::Class`], the message in its registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Ipc {
    /// Send the message to rdi and wait for its reply (out: the reply; only rax tells
    /// whether it was delivered). `EDEADSRCDST` when the peer is dead or dies, `EPERM`
    /// without permission.
    Call = 1,
    /// Send to rdi one way; blocks until received.
    Send = 2,
    /// Receive from rsi (or [`crate::Endpoint::ANY`]).
    Receive = 3,
    /// Reply to rdi, which waits for one from the caller (`ESRCH` when it does not: it died,
    /// or was never waiting). Never blocks.
    Reply = 4,
    /// [`Ipc::Reply`] then [`Ipc::Receive`]; a failed reply is ignored.
    ReplyReceive = 5,
    /// Set the caller's notification bit at rdi. Never blocks.
    Notify = 6,
    /// Put the message into the caller's outbox for rdi. Never blocks; `EAGAIN` when the
    /// outbox holds [`OUTBOX_CAPACITY`] messages, and [`KernelNotify::OUTBOX`] tells later that there is
    /// room.
    Post = 7,
    /// [`Ipc::Post`] then [`Ipc::Receive`]; returns `EAGAIN` without receiving when the
    /// outbox is full.
    PostReceive = 8,
    /// The copies of a [`Kcall::SafeCopyVector`], then [`Ipc::PostReceive`] from anybody: an answer and what it
    /// speaks of in one visit. rsi is [`along`]. Returns the copies' error without posting; they never fail with
    /// `EAGAIN`.
    CopyPostReceive = 9,
}

/// Where rsi of [`Ipc::CopyPostReceive`] has the number of copies; their address is below.
const ALONG_COUNT: u32 = 48;

/// rsi of [`Ipc::CopyPostReceive`]: `count` elements at `address`, which is user memory.
pub const fn along(address: u64, count: usize) -> u64 {
    address | (count as u64) << ALONG_COUNT
}

/// Address and number of elements that an [`along`] names.
pub const fn along_parts(word: u64) -> (u64, u64) {
    (word & ((1 << ALONG_COUNT) - 1), word >> ALONG_COUNT)
}

/// Messages one process can have posted and not yet received.
pub const OUTBOX_CAPACITY: usize = 64;

bitflags::bitflags! {
    /// Notifications from the kernel, `words[0]` of a message of [`crate::Class::Kernel`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct KernelNotify: u64 {
        /// The process's timer ([`Kcall::SetTimer`]) expired.
        const TIMER = 1 << 0;
        /// The outbox has room again after an `EAGAIN`.
        const OUTBOX = 1 << 1;
        /// To VM: [`Kcall::MemreqGet`] has something.
        const MEMREQ = 1 << 2;
        /// To PM: [`Kcall::GetStopped`] has something.
        const STOPPED = 1 << 3;
        /// Interrupt lines bound by [`Kcall::IrqBind`]: line `n` ([`LINES`]) is bit `32 + n`.
        const IRQS = 0xffff_ffff << 32;
    }
}

impl KernelNotify {
    /// What a message of [`crate::Class::Kernel`] says.
    pub const fn of(message: &crate::Message) -> KernelNotify {
        KernelNotify::from_bits_truncate(message.words[0])
    }
}

// ---- Kernel calls ---------------------------------------------------------------------

/// Kernel calls, the trap number in rax. Each needs its bit in [`Privileges::kcalls`].
///
/// Unless stated otherwise: `EPERM` without the bit, `ESRCH` for a dead endpoint, `EFAULT`
/// for a bad pointer of the caller's own (memory that is only absent VM makes present, but for
/// VM's own), `EINVAL` for anything malformed; 0 on success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Kcall {
    // -- processes
    /// `(name_lo, name_hi, role) -> endpoint`: a new process of this [`crate::role::Role`], stopped,
    /// no address space, no privileges. `EAGAIN` when the table is full, `EPERM` for a service
    /// unless VM or RS asks. A program's `syscall`s are Linux calls and its exceptions go to PM.
    /// Service slots are handed out from 1 up. What follows acts on services for VM and RS alone
    /// (`EPERM`).
    ProcCreate = 0x100,
    /// `(parent) -> endpoint`: a stopped copy of a blocked Linux process (registers with
    /// rax = 0, FPU, FS/GS base), without an address space.
    ProcFork = 0x101,
    /// `(endpoint)`: destroys a process: its queues, timers, memory requests. Peers waiting
    /// for it get `EDEADSRCDST`.
    ProcExit = 0x102,
    /// `(endpoint, &Privileges)`. By VM and RS; a program never has any (`EPERM`).
    ProcPriv = 0x103,
    /// `(endpoint, rip, rsp, rdi)`: fresh registers and FPU, whatever the process waited for is
    /// forgotten, runnable.
    ProcStart = 0x104,
    /// `(endpoint) -> StopState`: the process executes nothing further until
    /// [`Kcall::ProcResume`]. See [`StopState`].
    ProcStop = 0x105,
    /// `(endpoint, how)`: undoes [`Kcall::ProcStop`] and a fault's stop; sends the Linux call
    /// before which a process stands, unless its number is `u64::MAX`. `how` is of [`resume`].
    ProcResume = 0x106,
    /// `(endpoint, &mut Registers)`.
    ProcGetRegs = 0x107,
    /// `(endpoint, &Registers)`. Selectors and privileged flags are sanitised.
    ProcSetRegs = 0x108,
    /// `(endpoint, buffer, len) -> bytes`: the XSAVE area in standard format
    /// (`len` 0 asks for the size).
    ProcGetFpu = 0x109,
    /// `(endpoint, buffer, len)`: len 0 resets the FPU. Headers are sanitised.
    ProcSetFpu = 0x10a,
    /// `(slot, &mut ProcessInfo) -> 0`; `ENOENT` for a free slot.
    ProcInfo = 0x10b,
    /// `() -> endpoint` of a process that was `Busy` at `ProcStop` and now is not, or stopped as
    /// [`Kcall::ProcResume`] was told; `ENOENT` when there is none (PM).
    GetStopped = 0x10c,
    /// `(endpoint, priority 0..8)`: 0 is the highest; user processes run at 6.
    ProcPriority = 0x10e,
    /// `(endpoint, name_lo, name_hi)`: what `ProcInfo` shows.
    ProcName = 0x10f,

    // -- memory (VM)
    /// `(endpoint, pml4_physical or 0)`: binds an address space. The kernel fills entries
    /// 256..512 of the table. 0 unbinds (the process must not run).
    SetAddressSpace = 0x110,
    /// `(&mut MemoryRequest) -> 0`: takes one parked memory request; `ENOENT` when none.
    MemreqGet = 0x111,
    /// `(requestor, result: 0 or negated errno)`: lets a parked requestor retry or fail.
    MemreqReply = 0x112,
    /// `()`: flushes the caller's own translations (after VM edited its own tables).
    FlushSelf = 0x113,

    // -- copies
    /// `(&SafeCopy)`: see [`SafeCopy`]; the grantee is the caller.
    SafeCopy = 0x120,
    /// `(&[SafeCopy], count)`: in order, stops at the first failure. At most
    /// [`MAX_VECTOR`] elements.
    SafeCopyVector = 0x121,
    /// `(granter, grant, offset, len, pattern)`: fills through a grant; honours CPF_TRY.
    SafeMemset = 0x122,
    /// `(&VirCopy)`: see [`VirCopy`].
    VirCopy = 0x123,
    /// `(endpoint, address, len, pattern, flags)`: endpoint `NONE` is physical memory.
    Memset = 0x124,
    /// `(table, entries)`: registers the caller's grant table ([`crate::grant::GrantEntry`]);
    /// when it is not resident VM makes it so.
    SetGrants = 0x125,
    /// `(endpoint, address) -> physical`: `EFAULT` when not present. Never waits.
    Umap = 0x126,
    /// `(address)`: registers [`INBOX`] resident bytes of the caller for what Linux calls bring
    /// along ([`Brings`]).
    SetInbox = 0x127,

    // -- machine
    /// `() -> ns` since boot, monotonic.
    Time = 0x130,
    /// `(deadline_ns or 0)`: the caller's one timer; 0 disarms.
    SetTimer = 0x131,
    /// `(line)`: interrupts of IOAPIC line `line` (edge triggered) become
    /// [`KernelNotify::IRQS`] bits of the caller. `EPERM` unless the privileges list the line.
    IrqBind = 0x132,
    /// `(text, len)`: a line for the host's log; at most 512 bytes.
    Log = 0x133,
    /// `(status)`: ends the machine. Does not return.
    PowerOff = 0x134,
    /// `(&mut BootInfo)`.
    BootInfo = 0x135,
    /// `(entry, offset, buffer, len) -> bytes`: reads a boot archive entry.
    ModuleRead = 0x136,
    /// `(entry, &mut boot::ArchiveEntry)`: `ENOENT` past the last.
    ModuleInfo = 0x137,
    /// `(&[u8; 512])`: [`LinuxRoute`] of each Linux call number (PM).
    SetLinuxRoutes = 0x138,
    /// `(&mut Counters)`.
    Counters = 0x139,
    /// `()`: gives up the rest of the quantum. Needs no privilege.
    Yield = 0x13a,
    /// `()`: does nothing, for measurements. Needs no privilege.
    Null = 0x13b,
    /// `() -> len` of the kernel command line copied to `(buffer, capacity)`.
    CommandLine = 0x13c,
    /// `(count) -> choice`: which of `count` things that could all be next is next (a server
    /// with tasks; only in explored runs, see [`BootInfo::deciding`]).
    Decide = 0x13d,
    /// `(physical)`: VM needs a frame that the VMM withdrew ([`crate::trace`]); 1 when it is
    /// there afterwards, 0 when it stays away, 2 when it will come, but is not there yet.
    FrameRestore = 0x13e,
    /// `(what, ...)`: for the laboratory's eyes only ([`crate::trace::LAB_SERVING`],
    /// [`crate::trace::LAB_STAGE`], [`crate::trace::LAB_ALLOCATES`],
    /// [`crate::trace::LAB_ALLOCATION`]).
    Lab = 0x13f,
}

impl Kcall {
    /// The call's bit in [`Privileges::kcalls`].
    pub const fn bit(self) -> u64 {
        1 << (self as u64 - 0x100)
    }
}

/// The most elements of a [`Kcall::SafeCopyVector`].
pub const MAX_VECTOR: usize = 64;

/// `flags` of [`VirCopy`] and [`Kcall::Memset`]: fail with `EFAULT` instead of asking VM.
pub const CP_FLAG_TRY: u64 = 1;

/// One copy through a grant ([`Kcall::SafeCopy`]).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SafeCopy {
    /// The granter's endpoint.
    pub granter: u32,
    /// The grant id.
    pub grant: i32,
    /// Offset within the grant, bytes.
    pub offset: u64,
    /// The caller's buffer.
    pub address: u64,
    /// Bytes; 0 is `EDOM`.
    pub len: u64,
    /// 0: from the grant to the caller (needs CPF_READ). 1: from the caller to the grant
    /// (needs CPF_WRITE).
    pub to_grant: u64,
}

/// One copy between any two address spaces ([`Kcall::VirCopy`]).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct VirCopy {
    /// Source endpoint (`SELF`; `NONE` for physical memory).
    pub source: u32,
    /// Target endpoint (likewise).
    pub target: u32,
    /// Source address.
    pub source_address: u64,
    /// Target address.
    pub target_address: u64,
    /// Bytes; 0 is `EDOM`.
    pub len: u64,
    /// [`CP_FLAG_TRY`] or 0.
    pub flags: u64,
}

/// A copy that met an absent page and parked its caller, as VM sees it.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MemoryRequest {
    /// The parked caller.
    pub requestor: u32,
    /// Whose memory is wanted.
    pub target: u32,
    /// First byte of the whole operand.
    pub address: u64,
    /// Its length in bytes.
    pub len: u64,
    /// 1 when it will be written.
    pub write: u64,
    /// 1 when it is to fail rather than wait for a page of a file
    /// ([`crate::policy::CopyPolicy::FileOnly`]).
    pub soft: u64,
}

/// What [`Kcall::ProcStop`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum StopState {
    /// At a user instruction boundary: registers may be read and replaced. A Linux call
    /// still queued at its server has been withdrawn: its status is `ERESTARTNOINTR` in rax
    /// and its number in [`Registers::orig_rax`].
    Boundary = 0,
    /// A Linux call is with the server named in bits 8..: when it is answered the process is
    /// at a boundary and PM gets [`KernelNotify::STOPPED`]. Or PM is named, and an exception of
    /// its own is on the way there: whatever else there is comes after that.
    Busy = 1,
    /// Waiting for its page fault to be answered; registers are those of the faulting
    /// instruction and may be replaced.
    Faulting = 2,
    /// Before a Linux call that is not sent yet ([`resume::ENTRY`]).
    Entering = 3,
}

/// How a process goes on ([`Kcall::ProcResume`]), for tracing; 0 is as any process does.
pub mod resume {
    /// At its next Linux call it stops before that is sent: rax is `ENOSYS`, the number in
    /// `orig_rax`, and both it and the arguments may be replaced.
    pub const ENTRY: u64 = 1 << 0;
    /// When the Linux call that it is in, or stands before, is answered it stops.
    pub const EXIT: u64 = 1 << 1;
}

/// A process's integer state.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    pub rsp: u64,
    /// FS base, written by arch_prctl.
    pub fs_base: u64,
    /// GS base.
    pub gs_base: u64,
    /// Number of the Linux call in progress or just answered; `u64::MAX` when the last entry
    /// was not a Linux call. To restart one: rax = orig_rax, rip -= 2.
    pub orig_rax: u64,
}

/// What a process may do; default deny.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Privileges {
    /// [`Kcall::bit`]s.
    pub kcalls: u64,
    /// Slots it may call, send, post and notify: bit `slot % 64` of word `slot / 64`.
    pub peers: [u64; 4],
    /// IOAPIC lines it may bind, a bit each.
    pub irqs: u32,
    /// [`PRIV_MAGIC`], [`PRIV_COPY_ANY`], [`PRIV_PHYSICAL`], ...
    pub flags: u32,
}

/// May issue magic grants (VFS).
pub const PRIV_MAGIC: u32 = 1 << 0;
/// May use VirCopy and Memset on processes other than itself.
pub const PRIV_COPY_ANY: u32 = 1 << 1;
/// May use VirCopy and Memset on physical memory (VM).
pub const PRIV_PHYSICAL: u32 = 1 << 2;
/// May reply to, stop, and be told about Linux processes (PM, VFS, VM).
pub const PRIV_LINUX: u32 = 1 << 3;

/// Bytes of an inbox ([`Kcall::SetInbox`]).
pub const INBOX: usize = 256;

/// What a Linux call brings along to its server: the beginning of what one of its arguments
/// points at, as far as that is one page and present. Word 6 of the message says how many bytes
/// are in the server's inbox, until it receives again; 0 where nothing could be had.
///
/// Bits 2.. of a route ([`Kcall::SetLinuxRoutes`]) encode it: the argument's number + 1, and
/// above it the logarithm of the number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Brings {
    /// The argument: 0, 1 or 2.
    pub argument: u8,
    /// At most so many bytes, a power of two, at most [`INBOX`].
    pub bytes: u64,
}

impl Brings {
    /// For a route's bits 2...
    pub const fn encode(self) -> u8 {
        (self.argument + 1) & 3 | (self.bytes.trailing_zeros() as u8) << 2
    }

    /// From a route's bits 2..; `None` when the call brings nothing.
    #[inline(always)]
    pub const fn decode(code: u8) -> Option<Brings> {
        let bytes = 1 << (code >> 2);
        match code & 3 {
            0 => None,
            _ if bytes > INBOX as u64 => None,
            n => Some(Brings {
                argument: n - 1,
                bytes,
            }),
        }
    }
}

/// Which server answers a Linux call ([`Kcall::SetLinuxRoutes`]): bits 0 and 1 of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum LinuxRoute {
    /// Answered by the kernel with `ENOSYS` after a note to PM's [`crate::Endpoint::PM`] log.
    None = 0,
    /// To PM.
    Pm = 1,
    /// To VFS.
    Vfs = 2,
    /// To VM.
    Vm = 3,
}

/// One process as the kernel sees it.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ProcessInfo {
    /// Endpoint.
    pub endpoint: u32,
    /// Reasons it does not run: bits of [`rts`].
    pub flags: u32,
    /// Whom it waits for, when `flags` says sending, awaiting a reply or receiving.
    pub peer: u32,
    /// Scheduling priority.
    pub priority: u32,
    /// CPU time in ns.
    pub cpu_ns: u64,
    /// CR3.
    pub cr3: u64,
    /// Name, zero padded.
    pub name: [u8; 16],
}

/// Reasons a process does not run ([`ProcessInfo::flags`]).
pub mod rts {
    #![allow(missing_docs)]
    pub const FREE: u32 = 1 << 0;
    pub const STOPPED: u32 = 1 << 1;
    pub const SENDING: u32 = 1 << 2;
    pub const AWAIT_REPLY: u32 = 1 << 3;
    pub const RECEIVING: u32 = 1 << 4;
    pub const FAULTING: u32 = 1 << 5;
    pub const MEMREQ: u32 = 1 << 6;
    pub const NO_SPACE: u32 = 1 << 7;
}

/// The kernel's counters since boot.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Counters {
    /// Entries into the kernel, all causes.
    pub visits: u64,
    /// Messages delivered.
    pub messages: u64,
    /// Copies asked for (each element of a vector counts).
    pub copies: u64,
    /// Bytes they moved.
    pub copied_bytes: u64,
    /// Copies that failed on a TRY fault.
    pub soft_faults: u64,
    /// Copies that parked their caller.
    pub memory_requests: u64,
    /// Page faults of processes.
    pub page_faults: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Switches to another process.
    pub switches: u64,
    /// Time spent idle, ns.
    pub idle_ns: u64,
}

/// Checks that `[address, address + len)` is user memory.
pub const fn user_range(address: u64, len: u64) -> Result<(), Errno> {
    match address.checked_add(len) {
        Some(end) if end <= USER_END => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// The page numbers a range touches: `(first page address, pages)`.
pub const fn page_span(address: u64, len: u64) -> (u64, u64) {
    let first = crate::page_down(address);
    let end = crate::page_down(address + len - 1) + PAGE;
    (first, (end - first) / PAGE)
}
