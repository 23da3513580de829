//! What the boot loader hands over: the archive in the first PVH module, and in it the run
//! specification.
//!
//! Archive layout: an [`ArchiveHeader`], then `count` [`ArchiveEntry`]s, then the entries'
//! data, each at a page-aligned offset from the start of the archive, which itself is page
//! aligned in memory.

use crate::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `ArchiveHeader::magic`.
pub const ARCHIVE_MAGIC: u64 = u64::from_le_bytes(*b"ABSENTIA");

/// Start of the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ArchiveHeader {
    /// [`ARCHIVE_MAGIC`].
    pub magic: u64,
    /// Entries that follow.
    pub count: u64,
}

/// One file of the archive, 64 bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ArchiveEntry {
    /// Name, zero padded.
    pub name: [u8; 16],
    /// Offset of the data from the start of the archive, a multiple of the page size.
    pub offset: u64,
    /// Bytes stored.
    pub len: u64,
    /// [`KIND_FILE`] or [`KIND_FLAT`].
    pub kind: u64,
    /// Flat images: where the first byte is mapped (page aligned).
    pub address: u64,
    /// Flat images: bytes in memory, `len` rounded up plus zeroed bss.
    pub memory_len: u64,
    /// Flat images: entry point.
    pub entry: u64,
}

const _: () = assert!(size_of::<ArchiveEntry>() == 64);

/// A file: a server's ELF image, the run specification.
pub const KIND_FILE: u64 = 0;
/// A laid-out image that is mapped as it stands: `vm` (by the kernel) and `rs` (by VM), the
/// two that exist before there is an exec. Stored with its bss, so `len == memory_len`.
pub const KIND_FLAT: u64 = 1;

pub use crate::images::{IMAGES, names};

impl ArchiveEntry {
    /// The name without padding.
    pub fn name(&self) -> &str {
        let len = self
            .name
            .iter()
            .position(|&b| b == 0)
            .unwrap_or(self.name.len());
        core::str::from_utf8(&self.name[..len]).unwrap_or("?")
    }
}

/// `RunHeader::magic`.
pub const RUN_MAGIC: u64 = u64::from_le_bytes(*b"RUNSPEC1");

/// Start of the run specification: what PROGRAM is and how its world looks. It is followed
/// by the NUL-terminated strings: `argc` arguments (the first is PROGRAM's path), `envc`
/// environment strings, the working directory.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RunHeader {
    /// [`RUN_MAGIC`].
    pub magic: u64,
    /// Wall clock at boot, ns since 1970.
    pub epoch_ns: u64,
    /// Seed of the guest's entropy.
    pub seed: [u64; 4],
    /// Arguments.
    pub argc: u32,
    /// Environment strings.
    pub envc: u32,
    /// Bits of [`run_flags`].
    pub flags: u32,
    /// The terminal's rows (low half) and columns (high half), 0 when unknown.
    pub window: u32,
    /// User and group PROGRAM runs as.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
}

/// Bits of [`RunHeader::flags`].
pub mod run_flags {
    /// Standard input is the host's terminal.
    pub const STDIN_TTY: u32 = 1 << 0;
    /// Standard output is.
    pub const STDOUT_TTY: u32 = 1 << 1;
    /// Standard error is.
    pub const STDERR_TTY: u32 = 1 << 2;
    /// Name unknown system calls and print counters.
    pub const VERBOSE: u32 = 1 << 3;
    /// VM checks its invariants after every request.
    pub const VM_SANITY: u32 = 1 << 4;
    /// No randomisation of layouts, seeded entropy only, devices are polled, standard input
    /// is at its end.
    pub const DETERMINISTIC: u32 = 1 << 5;
    /// No randomisation of layouts.
    pub const NO_RANDOMIZE: u32 = 1 << 6;
    /// VFS remembers the paths that are looked for and not there, and tells the host at the end.
    pub const NOTE_ABSENT: u32 = 1 << 7;
    /// Any of these keeps programs at the same addresses.
    pub const FIXED_LAYOUT: u32 = NO_RANDOMIZE | DETERMINISTIC;
}

/// The run specification, read in place.
#[derive(Clone, Copy, Debug)]
pub struct RunSpec<'a> {
    /// The fixed part.
    pub header: RunHeader,
    strings: &'a [u8],
}

impl<'a> RunSpec<'a> {
    /// Reads a specification; `EINVAL` when it is malformed.
    pub fn parse(bytes: &'a [u8]) -> Result<RunSpec<'a>, Errno> {
        let (header, strings) = RunHeader::read_from_prefix(bytes).map_err(|_| Errno::EINVAL)?;
        let spec = RunSpec { header, strings };
        let wanted = header.argc as usize + header.envc as usize + 1;
        if header.magic != RUN_MAGIC || header.argc == 0 || spec.all().count() < wanted {
            return Err(Errno::EINVAL);
        }
        Ok(spec)
    }

    fn all(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        // The piece after the last NUL is not a string.
        let end = self
            .strings
            .iter()
            .rposition(|&b| b == 0)
            .map_or(0, |i| i + 1);
        self.strings[..end]
            .split_inclusive(|&b| b == 0)
            .map(|s| &s[..s.len() - 1])
    }

    /// PROGRAM and its arguments.
    pub fn args(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.all().take(self.header.argc as usize)
    }

    /// The environment.
    pub fn env(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.all()
            .skip(self.header.argc as usize)
            .take(self.header.envc as usize)
    }

    /// The working directory.
    pub fn cwd(&self) -> &'a [u8] {
        let before = self.header.argc as usize + self.header.envc as usize;
        self.all().nth(before).unwrap_or(b"/")
    }
}

/// Kernel command line words the guest understands (Linux's syntax for devices):
/// `virtio_mmio.device=<size>@<base>:<irq>`, [`CMDLINE_PCI`], [`CMDLINE_LAB`], [`CMDLINE_TSC`].
pub const CMDLINE_VIRTIO: &str = "virtio_mmio.device=";
/// `absentia.pci=0x<address>`: the configuration space of PCI bus 0 (its ECAM: 4 KiB for each of 256
/// functions), whose virtio devices are looked at, too. Firmware has given them their addresses.
pub const CMDLINE_PCI: &str = "absentia.pci=";
/// `absentia.lab=0x<address>`: the lab device's page.
pub const CMDLINE_LAB: &str = "absentia.lab=";
/// `absentia.tsc_khz=<decimal>`; without it the kernel calibrates against the APIC timer.
pub const CMDLINE_TSC: &str = "absentia.tsc_khz=";
/// `absentia.deterministic`: time is a function of work done, nothing is preempted by a clock,
/// and devices complete where they are asked.
pub const CMDLINE_DETERMINISTIC: &str = "absentia.deterministic";
/// `absentia.trace`: hash what happens, where no VMM turns the laboratory on. With
/// [`TRACE_RECORDS`] after it every record is logged, too ([`crate::lab::RECORD_LINE`]).
pub const CMDLINE_TRACE: &str = "absentia.trace";
/// See [`CMDLINE_TRACE`].
pub const TRACE_RECORDS: &str = "=records";
/// `absentia.plan=POINT.SIDEPAGE.LAYER[+...]`: faults that the kernel carries out where no VMM does.
/// Pages go from page tables (`pte`), allocations are `refused` or find memory `exhausted`. Points
/// ascend; the side is [`crate::point::Side::letter`].
pub const CMDLINE_PLAN: &str = "absentia.plan=";
/// `absentia.allocations`: servers' allocations are points of the trace, too
/// ([`crate::trace::Kind::Allocation`]).
pub const CMDLINE_ALLOCATIONS: &str = "absentia.allocations";
/// `absentia.copy=<name>`: the [`crate::policy::CopyPolicy`].
pub const CMDLINE_COPY: &str = "absentia.copy=";
/// `absentia.fail=<service>:<request>:<N>:<how>`, for tests: at its `N`th request of that name
/// (`read`, `peek`, `sync`, ...) the service dies (`crash`: an invalid instruction, `fault`: a
/// page fault), never answers again (`hang`), or answers an error (a Linux error number). With the request `exec` it is the
/// `N`th step of RS's exec of the service that fails, with an error number. May be given more
/// than once.
pub const CMDLINE_FAIL: &str = "absentia.fail=";
/// `absentia.start=<service>`: RS starts a service, too, that is not started without being asked for. May be
/// given more than once.
pub const CMDLINE_START: &str = "absentia.start=";
