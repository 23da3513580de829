//! The kernel's own interface: IPC traps, kernel calls, register frames, layout.
//!
//! A trap's number is in rax. IPC traps carry a [`crate::Message`] in registers; kernel
//! calls ([`calls`]) carry up to five words in rdi rsi rdx r8 r9 and return in rax a value or a
//! negated errno. rcx and r11 do not survive a trap.

mod arguments;
mod boot_info;
pub mod calls;
mod fault;

pub use arguments::{
    Answer, Argument, At, In, InBytes, InRow, Out, OutBytes, Row, Span as Bytes, answered,
};
pub use boot_info::{BootInfo, HEAP_PIECE, PROGRAMS_MEMORY_MIN, SERVICES_MEMORY, Span};
pub use calls::{Call, Kcall, Sound};
pub use fault::{Exception, PageFault, vector};

use crate::message::WORDS;
use crate::{Errno, Message, PAGE};
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

/// The copies that an [`along`] names.
pub const fn along_copies(word: u64) -> Row<SafeCopy> {
    Row::new(word & ((1 << ALONG_COUNT) - 1), word >> ALONG_COUNT)
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
    pub const fn of(message: &Message) -> KernelNotify {
        KernelNotify::from_bits_truncate(message.words[0])
    }

    /// The message that says so.
    pub const fn message(self) -> Message {
        let mut message = Message::new(0);
        message.words[0] = self.bits();
        message
    }
}

// ---- Copies ---------------------------------------------------------------------------

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

/// What [`Kcall::ProcStop`] found: with [`StopState::Busy`] comes the server's endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum StopState {
    /// At a user instruction boundary: registers may be read and replaced. A Linux call
    /// still queued at its server has been withdrawn: its status is `ERESTARTNOINTR` in rax
    /// and its number in [`Registers::orig_rax`].
    Boundary = 0,
    /// A Linux call is with the server that is named: when it is answered the process is
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

crate::words! {
    /// A process's integer state.
    #[allow(missing_docs)]
    pub struct Registers, RegisterCells {
        pub rax,
        pub rbx,
        pub rcx,
        pub rdx,
        pub rsi,
        pub rdi,
        pub rbp,
        pub r8,
        pub r9,
        pub r10,
        pub r11,
        pub r12,
        pub r13,
        pub r14,
        pub r15,
        pub rip,
        pub rflags,
        pub rsp,
        /// FS base, written by arch_prctl.
        pub fs_base,
        /// GS base.
        pub gs_base,
        /// Number of the Linux call in progress or just answered; `u64::MAX` when the last entry
        /// was not a Linux call. To restart one: rax = orig_rax, rip -= 2.
        pub orig_rax,
    }
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
    /// Where the caller of `call` has it.
    #[inline(always)]
    pub const fn address(self, call: &Message) -> u64 {
        call.words[self.argument as usize]
    }

    /// Says in `call` that so many bytes of it came along.
    #[inline(always)]
    pub const fn came(call: &mut Message, bytes: u64) {
        call.words[WORDS - 1] = bytes;
    }

    /// How many bytes came along with `call`.
    #[inline(always)]
    pub const fn bytes_of(call: &Message) -> u64 {
        call.words[WORDS - 1]
    }

    /// For a route's bits 2...
    pub const fn encode(self) -> u8 {
        (self.argument + 1) & 3 | ((self.bytes.trailing_zeros() & 0x3f) as u8) << 2
    }

    /// What a route says of it, for [`Brings::decode`]; 0 is nothing.
    pub const fn of_route(route: u8) -> u8 {
        route >> 2
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

impl LinuxRoute {
    /// The server that a route names.
    pub const fn of(route: u8) -> LinuxRoute {
        match route & 3 {
            1 => LinuxRoute::Pm,
            2 => LinuxRoute::Vfs,
            3 => LinuxRoute::Vm,
            _ => LinuxRoute::None,
        }
    }
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

crate::words! {
    /// The kernel's counters since boot.
    pub struct Counters, CounterCells {
        /// Entries into the kernel, all causes.
        pub visits,
        /// Messages delivered.
        pub messages,
        /// Copies asked for (each element of a vector counts).
        pub copies,
        /// Bytes they moved.
        pub copied_bytes,
        /// Copies that failed on a TRY fault.
        pub soft_faults,
        /// Copies that parked their caller.
        pub memory_requests,
        /// Page faults of processes.
        pub page_faults,
        /// Interrupts taken.
        pub interrupts,
        /// Switches to another process.
        pub switches,
        /// Time spent idle, ns.
        pub idle_ns,
    }
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
