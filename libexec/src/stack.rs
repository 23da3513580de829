//! The initial stack of a Linux program.
//!
//! From the stack pointer upwards: argc; the argument pointers and a null; the environment
//! pointers and a null; the auxiliary vector; then, after padding, 16 random bytes, the
//! platform's name, the argument strings, the environment strings, the program's path, and
//! eight zero bytes at the very top.

use abi::Errno;
use alloc::vec::Vec;
use linux_raw_sys::auxvec as at;

use crate::layout;
use crate::plan::Image;

/// Longest single argument or environment string with its NUL (Linux's `MAX_ARG_STRLEN`).
pub const STRING_MAX: u64 = 128 << 10;
/// Strings and pointers may always take this much (Linux's `ARG_MAX`).
const TOTAL_MIN: u64 = 128 << 10;
/// They never may take more than this: three quarters of the default stack.
const TOTAL_MAX: u64 = layout::STACK_SIZE / 4 * 3;
/// Ticks of `times()` per second.
const CLOCK_TICKS: u64 = 100;
const PLATFORM: &[u8] = b"x86_64";

/// Counts argument and environment strings against Linux's limits, as they are gathered.
#[derive(Clone, Debug)]
pub struct Budget {
    left: u64,
}

impl Budget {
    /// The budget of a process with this RLIMIT_STACK.
    pub const fn new(stack_limit: u64) -> Budget {
        let quarter = stack_limit / 4;
        Budget {
            left: if quarter < TOTAL_MIN {
                TOTAL_MIN
            } else if quarter > TOTAL_MAX {
                TOTAL_MAX
            } else {
                quarter
            },
        }
    }

    /// Adds a string of `len` bytes without its NUL, and its pointer. `E2BIG`.
    pub const fn add(&mut self, len: u64) -> Result<(), Errno> {
        if len >= STRING_MAX || len + 1 + 8 > self.left {
            return Err(Errno::E2BIG);
        }
        self.left -= len + 1 + 8;
        Ok(())
    }

    /// Bytes left for strings and pointers.
    pub const fn left(&self) -> u64 {
        self.left
    }
}

/// What the auxiliary vector says, beside the constants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Auxiliary {
    /// Program headers of the program in memory (AT_PHDR), if they are there.
    pub program_headers: Option<u64>,
    /// Bytes of one (AT_PHENT).
    pub program_header_size: u16,
    /// How many (AT_PHNUM).
    pub program_header_count: u16,
    /// Entry of the program, not of its dynamic linker (AT_ENTRY).
    pub entry: u64,
    /// Where the dynamic linker is (AT_BASE); 0 without one.
    pub base: u64,
    /// AT_UID.
    pub uid: u32,
    /// AT_EUID.
    pub euid: u32,
    /// AT_GID.
    pub gid: u32,
    /// AT_EGID.
    pub egid: u32,
    /// Set-id was honoured: the C library distrusts the environment (AT_SECURE).
    pub secure: bool,
    /// What AT_RANDOM points to: stack protector and pointer guard are made of it.
    pub random: [u8; 16],
    /// CPUID leaf 1 edx (AT_HWCAP).
    pub hwcap: u64,
    /// AT_HWCAP2.
    pub hwcap2: u64,
    /// Bytes a signal frame needs with this processor's FPU state (AT_MINSIGSTKSZ); 0 when
    /// unknown, then it is left out.
    pub min_signal_stack: u64,
}

impl Auxiliary {
    /// The part that `program` decides.
    pub fn of(program: &Image<'_>) -> Auxiliary {
        Auxiliary {
            program_headers: program.program_headers(),
            program_header_size: program.program_header_size(),
            program_header_count: program.program_header_count(),
            entry: program.entry(),
            ..Auxiliary::default()
        }
    }
}

/// The initial stack, ready to be written to the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The contents.
    pub bytes: Vec<u8>,
    /// Where they go, and the stack pointer to start with; a multiple of 16.
    pub sp: u64,
    /// One past the stack's highest byte, where `bytes` ends.
    pub top: u64,
    /// First byte of the argument strings.
    pub arg_start: u64,
    /// One past their end.
    pub arg_end: u64,
    /// First byte of the environment strings.
    pub env_start: u64,
    /// One past their end.
    pub env_end: u64,
    /// First byte of the auxiliary vector.
    pub auxv_start: u64,
    /// One past its end.
    pub auxv_end: u64,
}

/// Builds the initial stack that ends at `top`, a page multiple.
///
/// `arguments` and `environment` are the strings without NULs; a program without arguments
/// gets one empty one, as on Linux. `path` is what AT_EXECFN names. `E2BIG` beyond the
/// limits that a stack limit of `stack_limit` bytes implies; `EINVAL` for a string with a
/// NUL in it or an impossible `top`.
pub fn build<'a, A, E>(
    top: u64,
    stack_limit: u64,
    arguments: A,
    environment: E,
    path: &[u8],
    auxiliary: &Auxiliary,
) -> Result<Frame, Errno>
where
    A: Iterator<Item = &'a [u8]> + Clone,
    E: Iterator<Item = &'a [u8]> + Clone,
{
    let mut budget = Budget::new(stack_limit);
    let arguments = Strings::measure(arguments, &mut budget)?;
    let environment = Strings::measure(environment, &mut budget)?;
    budget.add(path.len() as u64)?;
    if path.contains(&0) {
        return Err(Errno::EINVAL);
    }

    // Strings, from the top down. The sum is below TOTAL_MAX, so only `top` can make these
    // wrap.
    let argc = arguments.count.max(1);
    let arg_bytes = arguments.bytes.max(1);
    let room = 2 * TOTAL_MAX;
    if top < room || !top.is_multiple_of(abi::PAGE) || top > abi::kernel::USER_END {
        return Err(Errno::EINVAL);
    }
    let path_start = top - 8 - (path.len() as u64 + 1);
    let env_end = path_start;
    let env_start = env_end - environment.bytes;
    let arg_end = env_start;
    let arg_start = arg_end - arg_bytes;
    let platform = arg_start - (PLATFORM.len() as u64 + 1);
    let random = (platform - 16) & !15;

    let vector = vector(auxiliary, path_start, platform, random);
    // argc, two null-terminated pointer lists, pairs.
    let words = 1 + argc + 1 + environment.count + 1 + 2 * vector.len() as u64;
    let sp = (random - 8 * words) & !15;

    let mut bytes = Vec::new();
    let len = (top - sp) as usize;
    bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    word(&mut bytes, argc);
    if arguments.count == 0 {
        word(&mut bytes, arg_start);
    }
    arguments.pointers(&mut bytes, arg_start);
    word(&mut bytes, 0);
    environment.pointers(&mut bytes, env_start);
    word(&mut bytes, 0);
    let auxv_start = sp + bytes.len() as u64;
    for (key, value) in vector {
        word(&mut bytes, u64::from(key));
        word(&mut bytes, value);
    }
    let auxv_end = sp + bytes.len() as u64;
    bytes.resize((random - sp) as usize, 0);
    bytes.extend_from_slice(&auxiliary.random);
    bytes.resize((platform - sp) as usize, 0);
    bytes.extend_from_slice(PLATFORM);
    bytes.resize((arg_start - sp) as usize, 0);
    arguments.contents(&mut bytes);
    bytes.resize((env_start - sp) as usize, 0);
    environment.contents(&mut bytes);
    bytes.extend_from_slice(path);
    bytes.resize(len, 0);
    Ok(Frame {
        bytes,
        sp,
        top,
        arg_start,
        arg_end,
        env_start,
        env_end,
        auxv_start,
        auxv_end,
    })
}

fn vector(auxiliary: &Auxiliary, path: u64, platform: u64, random: u64) -> Vec<(u32, u64)> {
    let mut vector = Vec::with_capacity(24);
    vector.push((at::AT_HWCAP, auxiliary.hwcap));
    vector.push((at::AT_PAGESZ, abi::PAGE));
    vector.push((at::AT_CLKTCK, CLOCK_TICKS));
    if let Some(address) = auxiliary.program_headers {
        vector.push((at::AT_PHDR, address));
        vector.push((at::AT_PHENT, u64::from(auxiliary.program_header_size)));
        vector.push((at::AT_PHNUM, u64::from(auxiliary.program_header_count)));
    }
    vector.extend([
        (at::AT_BASE, auxiliary.base),
        (at::AT_FLAGS, 0),
        (at::AT_ENTRY, auxiliary.entry),
        (at::AT_UID, u64::from(auxiliary.uid)),
        (at::AT_EUID, u64::from(auxiliary.euid)),
        (at::AT_GID, u64::from(auxiliary.gid)),
        (at::AT_EGID, u64::from(auxiliary.egid)),
        (at::AT_SECURE, u64::from(auxiliary.secure)),
        (at::AT_RANDOM, random),
        (at::AT_HWCAP2, auxiliary.hwcap2),
        (at::AT_EXECFN, path),
        (at::AT_PLATFORM, platform),
    ]);
    if auxiliary.min_signal_stack != 0 {
        vector.push((at::AT_MINSIGSTKSZ, auxiliary.min_signal_stack));
    }
    vector.push((at::AT_NULL, 0));
    vector
}

/// Strings with their number and size.
struct Strings<I> {
    strings: I,
    count: u64,
    /// With the NULs.
    bytes: u64,
}

impl<'a, I: Iterator<Item = &'a [u8]> + Clone> Strings<I> {
    fn measure(strings: I, budget: &mut Budget) -> Result<Self, Errno> {
        let (mut count, mut bytes) = (0, 0);
        for string in strings.clone() {
            budget.add(string.len() as u64)?;
            if string.contains(&0) {
                return Err(Errno::EINVAL);
            }
            count += 1;
            bytes += string.len() as u64 + 1;
        }
        Ok(Strings {
            strings,
            count,
            bytes,
        })
    }

    fn pointers(&self, out: &mut Vec<u8>, start: u64) {
        let mut address = start;
        for string in self.strings.clone() {
            word(out, address);
            address += string.len() as u64 + 1;
        }
    }

    fn contents(&self, out: &mut Vec<u8>) {
        for string in self.strings.clone() {
            out.extend_from_slice(string);
            out.push(0);
        }
    }
}

fn word(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}
