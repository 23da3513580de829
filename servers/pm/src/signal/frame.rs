//! The rt_sigframe of Linux x86-64: built on the stack for a handler, read back by
//! rt_sigreturn. Pure layout; nothing here touches a process.
//!
//! From the handler's stack pointer upwards: return address (the restorer), ucontext,
//! siginfo, then at a multiple of 64 the XSAVE area with the software bytes that mark its
//! extent.

use super::action::{Action, flags};
use super::info::{Info, SIGINFO_BYTES};
use super::set::SigSet;
use crate::orders::{set_sigcontext, sigcontext};
use crate::table::AltStack;
use abi::Errno;
use abi::kernel::{Registers, USER_END};
use alloc::vec;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

/// Words of Linux's struct ucontext.
pub const UCONTEXT_WORDS: usize = 38;
/// Offset of the ucontext in the frame, bytes.
pub const UCONTEXT_OFFSET: usize = 8;
/// Offset of the siginfo in the frame, bytes.
pub const SIGINFO_OFFSET: usize = UCONTEXT_OFFSET + UCONTEXT_WORDS * 8;
/// Bytes of the frame without the FPU state.
pub const FRAME_BYTES: usize = SIGINFO_OFFSET + SIGINFO_BYTES;

/// Bytes below the stack pointer that a leaf function may use.
const RED_ZONE: u64 = 128;
/// Bytes of the legacy (FXSAVE) part of the area.
pub const LEGACY_BYTES: usize = 512;
/// Offset of the XSAVE header's XSTATE_BV.
const XSTATE_BV: usize = 512;
/// Bytes of the legacy part and the header.
pub const HEADER_END: usize = 576;
/// Offset of the software-reserved bytes.
const SOFTWARE: usize = 464;
const MXCSR: usize = 24;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;

const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;

const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;

/// Trap, direction and resume flag: cleared for a handler.
const HANDLER_CLEARS: u64 = 1 << 8 | 1 << 10 | 1 << 16;
/// What rt_sigreturn may set: AC OF DF TF SF ZF AF PF CF RF.
const RESTORABLE_FLAGS: u64 =
    1 << 18 | 1 << 16 | 1 << 11 | 1 << 10 | 1 << 8 | 1 << 7 | 1 << 6 | 1 << 4 | 1 << 2 | 1;

/// Positions in the ucontext, in words.
mod at {
    pub const FLAGS: usize = 0;
    pub const STACK: usize = 2;
    pub const REGISTERS: usize = 5;
    pub const EFLAGS: usize = 22;
    pub const SEGMENTS: usize = 23;
    pub const ERR: usize = 24;
    pub const TRAPNO: usize = 25;
    pub const OLDMASK: usize = 26;
    pub const CR2: usize = 27;
    pub const FPSTATE: usize = 28;
    pub const SIGMASK: usize = 37;
}

/// What a frame is made of.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// The interrupted registers.
    pub registers: &'a Registers,
    /// The handler.
    pub action: Action,
    /// The signal.
    pub info: &'a Info,
    /// The mask that rt_sigreturn brings back.
    pub mask: SigSet,
    /// The alternate stack.
    pub altstack: AltStack,
    /// Vector, error code and address of the last exception.
    pub trap: (u64, u64, u64),
    /// The XSAVE area (or only its legacy part).
    pub fpu: Vec<u8>,
    /// XCR0.
    pub xfeatures: u64,
}

/// A finished frame.
#[derive(Debug)]
pub struct Frame {
    /// Where it goes.
    pub address: u64,
    /// What goes there.
    pub bytes: Vec<u8>,
    /// The registers in which the handler starts.
    pub registers: Registers,
}

fn put32(bytes: &mut [u8], offset: usize, value: u32) {
    if let Some(place) = bytes.get_mut(offset..offset + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

fn get32(bytes: &[u8], offset: usize) -> u32 {
    match bytes.get(offset..offset + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// `sigaltstack` flags as Linux stores them.
pub fn altstack_words(altstack: AltStack) -> [u64; 3] {
    let flags = if altstack.size == 0 {
        linux::SS_DISABLE
    } else {
        altstack.flags
    };
    [altstack.base, flags as u64, altstack.size]
}

/// The alternate stack that a stack_t describes: `EINVAL`, `ENOMEM`.
pub fn altstack_of([base, flags, size]: [u64; 3]) -> Result<AltStack, Errno> {
    let flags = flags as u32;
    match flags & !linux::SS_AUTODISARM {
        linux::SS_DISABLE => Ok(AltStack::default()),
        0 | linux::SS_ONSTACK if size < u64::from(linux::MINSIGSTKSZ) => Err(Errno::ENOMEM),
        0 | linux::SS_ONSTACK => Ok(AltStack {
            base,
            size,
            flags: flags & linux::SS_AUTODISARM,
        }),
        _ => Err(Errno::EINVAL),
    }
}

/// Whether code at `sp` counts as running on the alternate stack. With SS_AUTODISARM it
/// never does: the stack is taken away while a handler runs on it.
pub fn on_altstack(altstack: AltStack, sp: u64) -> bool {
    altstack.flags & linux::SS_AUTODISARM == 0 && altstack.contains(sp)
}

/// Builds the frame for a handler. `None`: there is no place for it, or no restorer.
pub fn build(delivery: Delivery<'_>) -> Option<Frame> {
    let Delivery {
        registers,
        action,
        info,
        mask,
        altstack,
        trap,
        mut fpu,
        xfeatures,
    } = delivery;
    if !action.has(flags::RESTORER) {
        return None;
    }
    let mut sp = registers.rsp.wrapping_sub(RED_ZONE);
    let was_on = on_altstack(altstack, registers.rsp);
    let entering = action.has(flags::ONSTACK) && altstack.size != 0 && !on_altstack(altstack, sp);
    if entering {
        sp = altstack.base.checked_add(altstack.size)?;
    }

    // The FPU state.
    let extended = fpu.len() > LEGACY_BYTES;
    let xstate_size = fpu.len() as u32;
    if extended {
        put32(&mut fpu, SOFTWARE, FP_XSTATE_MAGIC1);
        put32(&mut fpu, SOFTWARE + 4, xstate_size + 4);
        put32(&mut fpu, SOFTWARE + 8, xfeatures as u32);
        put32(&mut fpu, SOFTWARE + 12, (xfeatures >> 32) as u32);
        put32(&mut fpu, SOFTWARE + 16, xstate_size);
        fpu.extend_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
    }
    let fpstate = sp.checked_sub(fpu.len() as u64)? & !63;
    // At the handler's entry rsp + 8 is a multiple of 16, as after a call.
    let address = (fpstate.checked_sub(FRAME_BYTES as u64)? & !15).checked_sub(8)?;
    if (was_on || entering) && address < altstack.base {
        return None;
    }
    if registers.rsp > USER_END && !entering {
        return None;
    }

    let mut uc = [0u64; UCONTEXT_WORDS];
    uc[at::FLAGS] =
        UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS | if extended { UC_FP_XSTATE } else { 0 };
    uc[at::STACK..at::STACK + 3].copy_from_slice(&altstack_words(altstack));
    uc[at::REGISTERS..at::REGISTERS + 17].copy_from_slice(&sigcontext(registers));
    uc[at::EFLAGS] = registers.rflags;
    uc[at::SEGMENTS] = USER_CS | USER_SS << 48;
    uc[at::ERR] = trap.1;
    uc[at::TRAPNO] = trap.0;
    uc[at::OLDMASK] = mask.0;
    uc[at::CR2] = trap.2;
    uc[at::FPSTATE] = fpstate;
    uc[at::SIGMASK] = mask.0;

    let mut bytes = vec![0u8; (fpstate - address) as usize];
    bytes[..8].copy_from_slice(&action.restorer.to_le_bytes());
    let body = &mut bytes[UCONTEXT_OFFSET..SIGINFO_OFFSET];
    for (chunk, word) in body.chunks_exact_mut(8).zip(uc) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes[SIGINFO_OFFSET..FRAME_BYTES].copy_from_slice(&info.to_bytes());
    bytes.extend_from_slice(&fpu);

    let mut entry = *registers;
    entry.rip = action.handler;
    entry.rsp = address;
    entry.rdi = info.signal() as u64;
    entry.rsi = address + SIGINFO_OFFSET as u64;
    entry.rdx = address + UCONTEXT_OFFSET as u64;
    entry.rax = 0;
    entry.rflags &= !HANDLER_CLEARS;
    entry.orig_rax = u64::MAX;
    Some(Frame {
        address,
        bytes,
        registers: entry,
    })
}

/// What rt_sigreturn brings back.
#[derive(Debug, PartialEq)]
pub struct Restored {
    /// The registers.
    pub registers: Registers,
    /// The mask.
    pub mask: SigSet,
    /// The alternate stack's words.
    pub altstack: [u64; 3],
    /// Address of the FPU state, or 0.
    pub fpstate: u64,
}

/// Reads a ucontext. `current` supplies what it does not hold. `None` when the processor would not go
/// on there: the address is none at all (in the kernel's half it faults there), or the segments are
/// not a 64-bit program's.
pub fn restore(uc: &[u64; UCONTEXT_WORDS], current: &Registers) -> Option<Restored> {
    let mut r = *current;
    set_sigcontext(&mut r, uc[at::REGISTERS..].first_chunk()?);
    if (r.rip as i64) << 16 >> 16 != r.rip as i64 {
        return None;
    }
    // Any privilege counts as a program's.
    let [cs, ss] = [0, 48].map(|shift| (uc[at::SEGMENTS] >> shift) & 0xffff | 3);
    let strict = uc[at::FLAGS] & UC_STRICT_RESTORE_SS != 0;
    if cs != USER_CS || strict && ss != USER_SS {
        return None;
    }
    r.rflags = current.rflags & !RESTORABLE_FLAGS | uc[at::EFLAGS] & RESTORABLE_FLAGS;
    r.orig_rax = u64::MAX;
    Some(Restored {
        registers: r,
        mask: SigSet(uc[at::SIGMASK]).minus(super::set::SOVEREIGN),
        altstack: [uc[at::STACK], uc[at::STACK + 1], uc[at::STACK + 2]],
        fpstate: uc[at::FPSTATE],
    })
}

/// How many bytes of XSAVE area follow the legacy part that `legacy` is, if its software
/// bytes say so and fit an area of `ours` bytes.
pub fn extended_bytes(legacy: &[u8], ours: usize) -> Option<usize> {
    let size = get32(legacy, SOFTWARE + 16) as usize;
    let extended = get32(legacy, SOFTWARE + 4) as usize;
    (get32(legacy, SOFTWARE) == FP_XSTATE_MAGIC1
        && size >= HEADER_END
        && size <= ours
        && size <= extended)
        .then_some(size)
}

/// Whether the four bytes behind the area end it properly.
pub fn is_magic2(bytes: [u8; 4]) -> bool {
    u32::from_le_bytes(bytes) == FP_XSTATE_MAGIC2
}

/// A user's area at full length, if the processor takes it: no reserved bits in MXCSR, and a header
/// that names only `xfeatures`. `extended` false means that only the x87 and SSE state in it is valid.
pub fn checked_fpu(
    mut area: Vec<u8>,
    ours: usize,
    xfeatures: u64,
    extended: bool,
) -> Option<Vec<u8>> {
    area.resize(ours, 0);
    if get32(&area, MXCSR) & !0xffff != 0 {
        return None;
    }
    if ours >= HEADER_END {
        if let Some(software) = area.get_mut(SOFTWARE..LEGACY_BYTES) {
            software.fill(0);
        }
        if extended {
            let word = |at| u64::from(get32(&area, at)) | u64::from(get32(&area, at + 4)) << 32;
            let [features, compact, reserved] = [0, 8, 16].map(|at| word(XSTATE_BV + at));
            if features & !xfeatures != 0 || compact != 0 || reserved != 0 {
                return None;
            }
        } else {
            if let Some(rest) = area.get_mut(LEGACY_BYTES..) {
                rest.fill(0);
            }
            put32(&mut area, XSTATE_BV, 3);
        }
    }
    Some(area)
}
