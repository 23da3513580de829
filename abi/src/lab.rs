//! The lab device: the VMM's paravirtual page. Optional; the guest boots without it.
//!
//! The VMM names its guest-physical address on the kernel command line as
//! `absentia.lab=0x...`. Registers are 64 bits wide, little endian, written with plain
//! 8-byte stores; a store to a doorbell leaves to the VMM.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Doorbell: a log line. Write the guest-physical address of the text to
/// [`LOG_ADDRESS`] first (plain register, latched), then its length here.
pub const LOG_DOORBELL: u64 = 0x00;
/// Latched by the next [`LOG_DOORBELL`].
pub const LOG_ADDRESS: u64 = 0x08;
/// Doorbell: end the machine with this status (0..=255, or [`POWEROFF_PANIC`]).
pub const POWEROFF: u64 = 0x10;
/// Doorbell: the first instruction of PROGRAM is about to run (its time is what boot costs).
pub const PROGRAM_STARTED: u64 = 0x18;

/// Guest-physical address of the kernel's [`Inspection`].
pub const INSPECTION: u64 = 0x20;
/// Doorbell: guest-physical address of the kernel's [`crate::trace::Control`], which the VMM
/// fills in before the guest goes on.
pub const CONTROL: u64 = 0x28;
/// Doorbell: the point of this number was reached; its record is the newest.
pub const POINT: u64 = 0x30;
/// Doorbell: nobody can run and no timer is set (deterministic runs only).
pub const STUCK: u64 = 0x38;
/// Doorbell: the trace ring is full.
pub const TRACE_FULL: u64 = 0x40;
/// Doorbell: VM wants the withdrawn frame at this physical address back.
pub const RESTORE: u64 = 0x48;

/// Software bit of a leaf page-table entry that is not present although its region allows
/// access: the VMM took the page away. VM does as if it had evicted the page itself.
pub const PTE_EVICTED: u64 = 1 << 11;

/// `Inspection::magic`.
pub const INSPECTION_MAGIC: u64 = u64::from_le_bytes(*b"INSPECT1");

/// Where the VMM finds the kernel's process table and message queues in guest memory, so that
/// it can tell who waits for whom without the guest's help. All addresses are physical.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Inspection {
    /// [`INSPECTION_MAGIC`].
    pub magic: u64,
    /// The process table.
    pub table: u64,
    /// Bytes of one process.
    pub stride: u64,
    /// Processes in the table.
    pub slots: u64,
    /// The pointer to the process that runs, an address of the kernel's.
    pub current: u64,
    /// What that is while the kernel idles.
    pub nobody: u64,
    /// The kernel's [`crate::kernel::Counters`].
    pub counters: u64,
    /// Links of the message nodes, `u16` each. Node `i < slots` is the sender in slot `i`.
    pub links: u64,
    /// Posted messages, nodes from `slots` on: the source's endpoint at 0.
    pub posts: u64,
    /// Bytes of one posted message.
    pub post_stride: u64,
    /// Posted messages.
    pub post_count: u64,
    /// Offset of the message in a posted one.
    pub post_message: u64,
    /// Offsets in a process: [`crate::kernel::Registers`], ...
    pub regs: u64,
    /// ... its [`crate::kernel::rts`] flags,
    pub flags: u64,
    /// ... its endpoint,
    pub endpoint: u64,
    /// ... whom it sends to or awaits a reply from,
    pub peer: u64,
    /// ... its receive filter,
    pub filter: u64,
    /// ... the class of what it sends ([`crate::Class`]),
    pub class: u64,
    /// ... the words of its page fault or exception,
    pub fault: u64,
    /// ... the first node of its queue, `u16`,
    pub queue: u64,
    /// ... its CPU time in ticks,
    pub ticks: u64,
    /// ... its name, 16 bytes,
    pub name: u64,
    /// ... its page table's physical address,
    pub cr3: u64,
    /// ... and what its copy waits for, while [`crate::kernel::rts::MEMREQ`] is set: the
    /// target's endpoint (`u32`) at 0, address at 8, length at 16, write at 24 (a byte).
    pub parked: u64,
}

/// Status of [`POWEROFF`] after a kernel panic or a dead core server.
pub const POWEROFF_PANIC: u64 = 0x100;

/// Status of [`POWEROFF`] of a deterministic run in which nobody can run any more.
pub const POWEROFF_STUCK: u64 = 0x101;
/// The line on [`SERIAL_PORT`] that says so where there is no lab device.
pub const STUCK_LINE: &str = "stuck: nobody can run and no timer is set";
/// Start of the log line of a deterministic run that says what is still held at its end.
pub const ACCOUNTS: &str = "accounts:";
/// Start of the line on [`SERIAL_PORT`] with the trace's hash where there is no lab device.
pub const TRACE_LINE: &str = "trace:";

/// Start of a line on [`SERIAL_PORT`] that is a record of the trace: the eight words of
/// [`crate::trace::Record`] in hexadecimal.
pub const RECORD_LINE: &str = "record:";
/// Start of the line that says what became of a fault of [`crate::boot::CMDLINE_PLAN`]: its
/// point, then [`PLAN_DONE`] with address and frame in hexadecimal, or why there was nothing to
/// do.
pub const PLAN_LINE: &str = "plan:";
/// See [`PLAN_LINE`].
pub const PLAN_DONE: &str = "absent";
/// Start of the line on [`SERIAL_PORT`] that says at boot where the kernel's [`Inspection`] is,
/// where there is no lab device: a physical address in hexadecimal.
pub const INSPECTION_LINE: &str = "inspection:";

/// Start of the line on [`SERIAL_PORT`] that names what a processor lacks of what the kernel needs.
/// The kernel ends there.
pub const LACKS_LINE: &str = "this processor lacks";

/// What [`DEBUG_EXIT_PORT`] gets after a kernel panic or a dead core server: with QEMU's own
/// failures at status 1, a death needs a number of its own.
pub const DEBUG_EXIT_PANIC: u32 = 0x7f;
/// What it gets when nobody can run any more.
pub const DEBUG_EXIT_STUCK: u32 = 0x7e;
/// What it gets otherwise: this, with the low five bits of the status added.
pub const DEBUG_EXIT_STATUS: u32 = 0x40;
/// Start of the line on [`SERIAL_PORT`] that stands for [`PROGRAM_STARTED`] where there is no
/// lab device.
pub const STARTED_LINE: &str = "program started:";

/// CPUID leaf that tells the guest its gate: eax = [`GATE_MAGIC`] means deprivileged.
pub const GATE_CPUID_LEAF: u32 = 0x4000_0100;
/// eax of [`GATE_CPUID_LEAF`] when the kernel proper is to run at CPL3.
pub const GATE_MAGIC: u32 = 0x4c49_4250;

/// ebx of [`GATE_CPUID_LEAF`], whichever the gate: bit 0 says that this host interprets CPL0. A
/// direct kernel then does with FXSAVE, for the emulator lacks XSAVE, and `syscall` comes to LSTAR
/// at CPL3; elsewhere it comes at CPL0, whatever the gate.
pub const GATE_INTERPRETED: u32 = 1;

/// The port on which a direct kernel without a lab device reports its status (QEMU's
/// `isa-debug-exit,iobase=0xf4,iosize=0x04`): QEMU then exits with `status << 1 | 1`.
pub const DEBUG_EXIT_PORT: u16 = 0xf4;
/// The port of the serial log (COM1) in the direct gate.
pub const SERIAL_PORT: u16 = 0x3f8;
