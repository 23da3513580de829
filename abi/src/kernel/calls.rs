//! Kernel calls, each declared once: its number, what it says, and what it is answered with. A server makes
//! one by [`Call::words`] (`rt::kernel::call`), the kernel hears it as the structure of the same name in
//! [`heard`], and docs/protocols.md lists them.

use super::arguments::{Answer, Argument, In, InBytes, InRow, Out, OutBytes};
use super::{INBOX, MemoryRequest, Privileges, Registers, StopState};
use crate::boot::ArchiveEntry;
use crate::grant::GrantEntry;
use crate::message::{Fields, WORDS};
use crate::role::Role;
use crate::trace::{Refusal, Restored, Serving, Stage, Wanted};
use crate::{Endpoint, Errno, kernel};
use core::cell::Cell;

/// Words that a call has room for: rdi rsi rdx r8 r9.
pub const MOST: usize = 5;

/// A kernel call.
pub trait Call: Sized {
    /// Its number.
    const CALL: Kcall;
    /// Words that it takes.
    const COUNT: usize;
    /// What it returns.
    type Answer: Answer;
    /// What goes into the registers: the first [`Call::COUNT`] of these.
    fn words(self) -> [u64; WORDS];
}

/// Calls that any caller may make with any arguments that it can name: what the kernel writes are values
/// that the caller lent for it.
pub trait Sound: Call {}

/// A kernel call for documents.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// Its number.
    pub number: u64,
    /// Arguments and their types.
    pub arguments: &'static [(&'static str, &'static str)],
    /// The type of what it returns.
    pub answer: &'static str,
}

macro_rules! kernel_calls {
    ($(
        $(#[$meta:meta])*
        $number:literal $([$unsafe:tt])? $name:ident $(<$a:lifetime>)?
            { $( $(#[$field_meta:meta])* $field:ident : $type:ty ),* $(,)? } -> $answer:ty;
    )*) => {
        /// Kernel calls, the trap number in rax. Each but [`Kcall::Null`] and [`Kcall::Yield`] needs its bit in
        /// [`Privileges::kcalls`].
        ///
        /// Unless stated otherwise: `EPERM` without the bit, `ESRCH` for a dead endpoint, `EFAULT`
        /// for a bad pointer of the caller's own (memory that is only absent VM makes present, but for
        /// VM's own), `EINVAL` for anything malformed; 0 on success.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u64)]
        pub enum Kcall { $( $(#[$meta])* $name = $number, )* }

        /// All of them, in the order of their numbers.
        pub const ALL: &[Described] = &[$( Described {
            name: stringify!($name),
            number: $number,
            arguments: &[$( (stringify!($field), stringify!($type)) ),*],
            answer: stringify!($answer),
        } ),*];

        $(
            $(#[$meta])*
            #[derive(Debug)]
            pub struct $name $(<$a>)? { $( $(#[$field_meta])* #[allow(missing_docs)] pub $field: $type ),* }

            impl $(<$a>)? Call for $name $(<$a>)? {
                const CALL: Kcall = Kcall::$name;
                const COUNT: usize = <heard::$name $(<$a>)? as Fields>::WORDS;
                type Answer = $answer;
                #[inline(always)]
                fn words(self) -> [u64; WORDS] {
                    const { assert!(Self::COUNT <= MOST) };
                    let mut words = [0; WORDS];
                    heard::$name { $( $field: self.$field.said() ),* }.put(&mut words, 0);
                    words
                }
            }

            kernel_calls!(@sound [$($unsafe)?] $name $($a)?);
        )*

        /// The calls as the kernel hears them: what was memory of the caller's is an address.
        pub mod heard {
            use super::*;
            $(
                /// What the kernel hears of the call of this name.
                #[derive(Debug)]
                pub struct $name $(<$a>)? { $( #[allow(missing_docs)] pub $field: <$type as Argument>::Heard ),* }

                impl $(<$a>)? Fields for $name $(<$a>)? {
                    const WORDS: usize = 0 $( + <<$type as Argument>::Heard as Fields>::WORDS )*;
                    #[inline(always)]
                    #[allow(unused_variables, unused_mut, unused_assignments)]
                    fn put(self, words: &mut [u64; WORDS], mut at: usize) {
                        $(
                            self.$field.put(words, at);
                            at += <<$type as Argument>::Heard as Fields>::WORDS;
                        )*
                    }
                    #[inline(always)]
                    #[allow(unused_variables, unused_mut, unused_assignments)]
                    fn take(words: &[u64; WORDS], mut at: usize) -> Option<Self> {
                        $(
                            let $field = <<$type as Argument>::Heard as Fields>::take(words, at)?;
                            at += <<$type as Argument>::Heard as Fields>::WORDS;
                        )*
                        Some($name { $( $field ),* })
                    }
                }
            )*
        }
    };
    (@sound [unsafe] $name:ident $($a:lifetime)?) => {};
    (@sound [] $name:ident) => { impl Sound for $name {} };
    (@sound [] $name:ident $a:lifetime) => { impl<$a> Sound for $name<$a> {} };
}

kernel_calls! {
    // -- processes
    /// A new process of this role, stopped, no address space, no privileges. `EAGAIN` when the table is full,
    /// `EPERM` for a service unless VM or RS asks. A program's `syscall`s are Linux calls and its exceptions
    /// go to PM. Service slots are handed out from 1 up. What follows acts on services for VM and RS alone
    /// (`EPERM`).
    0x100 ProcCreate { name: [u8; 16], role: Role } -> Endpoint;
    /// A stopped copy of a blocked Linux process (registers with rax = 0, FPU, FS/GS base), without an
    /// address space.
    0x101 ProcFork { parent: Endpoint } -> Endpoint;
    /// Destroys a process: its queues, timers, memory requests. Peers waiting for it get `EDEADSRCDST`.
    0x102 ProcExit { who: Endpoint } -> ();
    /// What a process may do. By VM and RS; a program never has any privileges (`EPERM`).
    0x103 ProcPriv<'a> { who: Endpoint, privileges: In<'a, Privileges> } -> ();
    /// Fresh registers and FPU, whatever the process waited for is forgotten, runnable.
    0x104 ProcStart { who: Endpoint, rip: u64, rsp: u64, rdi: u64 } -> ();
    /// The process executes nothing further until [`Kcall::ProcResume`]. See [`StopState`].
    0x105 ProcStop { who: Endpoint } -> (StopState, Endpoint);
    /// Undoes [`Kcall::ProcStop`] and a fault's stop; sends the Linux call before which a process stands,
    /// unless its number is `u64::MAX`. `how` is of [`kernel::resume`].
    0x106 ProcResume { who: Endpoint, how: u64 } -> ();
    /// A stopped process's registers.
    0x107 ProcGetRegs<'a> { who: Endpoint, registers: Out<'a, Registers> } -> ();
    /// Replaces them. Selectors and privileged flags are sanitised.
    0x108 ProcSetRegs<'a> { who: Endpoint, registers: In<'a, Registers> } -> ();
    /// The XSAVE area in standard format, as far as there is room: bytes. No room asks for the size.
    0x109 ProcGetFpu<'a> { who: Endpoint, area: OutBytes<'a> } -> usize;
    /// Replaces it; nothing resets the FPU. Headers are sanitised.
    0x10a ProcSetFpu<'a> { who: Endpoint, area: InBytes<'a> } -> ();
    /// What is in a slot; `ENOENT` for a free one.
    0x10b ProcInfo<'a> { slot: usize, info: Out<'a, kernel::ProcessInfo> } -> ();
    /// A process that was `Busy` at [`Kcall::ProcStop`] and now is not, or stopped as [`Kcall::ProcResume`]
    /// was told; `ENOENT` when there is none (PM).
    0x10c GetStopped {} -> Endpoint;
    /// 0 is the highest of 8; user processes run at 6.
    0x10e ProcPriority { who: Endpoint, priority: u64 } -> ();
    /// What [`Kcall::ProcInfo`] shows.
    0x10f ProcName { who: Endpoint, name: [u8; 16] } -> ();

    // -- memory (VM)
    /// Binds an address space: the physical address of its topmost table, whose entries 256..512 the kernel
    /// fills. 0 unbinds (the process must not run).
    0x110 SetAddressSpace { who: Endpoint, table: u64 } -> ();
    /// Takes one parked memory request; `ENOENT` when there is none.
    0x111 MemreqGet<'a> { request: Out<'a, MemoryRequest> } -> ();
    /// Lets a parked requestor retry or fail.
    0x112 MemreqReply { requestor: Endpoint, result: Result<(), Errno> } -> ();
    /// Flushes the caller's own translations (after VM edited its own tables).
    0x113 FlushSelf {} -> ();

    // -- copies
    /// One copy through a grant; the grantee is the caller.
    0x120 [unsafe] SafeCopy<'a> { copy: In<'a, kernel::SafeCopy> } -> ();
    /// Several in order, up to the first failure. At most [`kernel::MAX_VECTOR`].
    0x121 [unsafe] SafeCopyVector<'a> { copies: InRow<'a, kernel::SafeCopy> } -> ();
    /// Fills through a grant; honours CPF_TRY.
    0x122 SafeMemset { granter: Endpoint, grant: i32, offset: u64, len: u64, pattern: u8 } -> ();
    /// One copy between any two address spaces.
    0x123 [unsafe] VirCopy<'a> { copy: In<'a, kernel::VirCopy> } -> ();
    /// Fills memory; endpoint `NONE` is physical memory. `flags` is [`kernel::CP_FLAG_TRY`] or 0.
    0x124 [unsafe] Memset { who: Endpoint, address: u64, len: u64, pattern: u8, flags: u64 } -> ();
    /// Registers the caller's grant table, which the kernel reads, and marks, from now on; when it is not
    /// resident VM makes it so.
    0x125 [unsafe] SetGrants<'a> { table: InRow<'a, GrantEntry> } -> ();
    /// Where an address is in physical memory: `EFAULT` when not present. Never waits.
    0x126 Umap { who: Endpoint, address: u64 } -> u64;
    /// Registers resident bytes of the caller, which the kernel writes from now on, for what Linux calls bring
    /// along ([`kernel::Brings`]).
    0x127 [unsafe] SetInbox<'a> { inbox: Out<'a, [u8; INBOX]> } -> ();

    // -- for the laboratory's eyes only
    /// Where the caller keeps what it is doing: the kernel looks there from now on.
    0x128 LabServing { serving: In<'static, Cell<Serving>> } -> ();
    /// A step of an exec begins.
    0x129 LabStage { target: Endpoint, stage: Stage, address: u64, len: u64 } -> ();
    /// Whether a laboratory wants to know of the caller's allocations.
    0x12a LabAllocates {} -> bool;
    /// Memory is about to be allocated.
    0x12b LabAllocation { wanted: Wanted, bytes: u64 } -> Refusal;

    // -- machine
    /// Nanoseconds since boot, monotonic.
    0x130 Time {} -> u64;
    /// The caller's one timer, in nanoseconds since boot; 0 disarms.
    0x131 SetTimer { deadline: u64 } -> ();
    /// Interrupts of IOAPIC line `line` (edge triggered) become [`kernel::KernelNotify::IRQS`] bits of the
    /// caller. `EPERM` unless the privileges list the line.
    0x132 IrqBind { line: u32 } -> ();
    /// A line for the host's log; at most 512 bytes.
    0x133 Log<'a> { text: InBytes<'a> } -> ();
    /// Ends the machine. Does not return.
    0x134 PowerOff { status: u64 } -> ();
    /// What the kernel found at boot.
    0x135 BootInfo<'a> { info: Out<'a, kernel::BootInfo> } -> ();
    /// Reads a boot archive entry: bytes.
    0x136 ModuleRead<'a> { entry: usize, offset: u64, buffer: OutBytes<'a> } -> usize;
    /// What a boot archive entry is: `ENOENT` past the last.
    0x137 ModuleInfo<'a> { entry: usize, info: Out<'a, ArchiveEntry> } -> ();
    /// [`kernel::LinuxRoute`] of each Linux call number (PM).
    0x138 SetLinuxRoutes<'a> { routes: In<'a, [u8; 512]> } -> ();
    /// The kernel's counters.
    0x139 Counters<'a> { counters: Out<'a, kernel::Counters> } -> ();
    /// Gives up the rest of the quantum. Needs no privilege.
    0x13a Yield {} -> ();
    /// Does nothing, for measurements. Needs no privilege.
    0x13b Null {} -> ();
    /// The kernel command line, as far as there is room: bytes.
    0x13c CommandLine<'a> { buffer: OutBytes<'a> } -> usize;
    /// Which of `count` things that could all be next is next (a server with tasks; only in explored runs, see
    /// [`kernel::BootInfo::deciding`]).
    0x13d Decide { count: usize } -> usize;
    /// VM needs a frame that the VMM withdrew ([`crate::trace`]).
    0x13e FrameRestore { physical: u64 } -> Restored;
}

impl Kcall {
    /// The call's bit in [`Privileges::kcalls`].
    pub const fn bit(self) -> u64 {
        1 << (self as u64 - 0x100)
    }
}
