//! The lab device: the VMM's paravirtual page. Optional; the guest boots without it.
//!
//! The VMM names its guest-physical address on the kernel command line as
//! `absentia.lab=0x...`. Registers are 64 bits wide, little endian, written with plain
//! 8-byte stores; a store to a doorbell leaves to the VMM.

/// Doorbell: a log line. Write the guest-physical address of the text to
/// [`LOG_ADDRESS`] first (plain register, latched), then its length here.
pub const LOG_DOORBELL: u64 = 0x00;
/// Latched by the next [`LOG_DOORBELL`].
pub const LOG_ADDRESS: u64 = 0x08;
/// Doorbell: end the machine with this status (0..=255, or [`POWEROFF_PANIC`]).
pub const POWEROFF: u64 = 0x10;
/// Doorbell: the first instruction of PROGRAM is about to run (its time is what boot costs).
pub const PROGRAM_STARTED: u64 = 0x18;

/// Status of [`POWEROFF`] after a kernel panic or a dead core server.
pub const POWEROFF_PANIC: u64 = 0x100;

/// CPUID leaf that tells the guest its gate: eax = [`GATE_MAGIC`] means deprivileged.
pub const GATE_CPUID_LEAF: u32 = 0x4000_0100;
/// eax of [`GATE_CPUID_LEAF`] when the kernel proper is to run at CPL3.
pub const GATE_MAGIC: u32 = 0x4c49_4250;

/// ebx of [`GATE_CPUID_LEAF`], whichever the gate: bit 0 says that this host interprets CPL0
/// with an emulator that lacks XSAVE, so that a direct kernel must do with FXSAVE.
pub const GATE_INTERPRETED: u32 = 1;

/// The port on which a direct kernel without a lab device reports its status (QEMU's
/// `isa-debug-exit,iobase=0xf4,iosize=0x04`): QEMU then exits with `status << 1 | 1`.
pub const DEBUG_EXIT_PORT: u16 = 0xf4;
/// The port of the serial log (COM1) in the direct gate.
pub const SERIAL_PORT: u16 = 0x3f8;
