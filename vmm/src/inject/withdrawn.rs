//! Frames that are taken from under the guest. Page tables still name them, so the access leaves
//! to the VMM, which makes a page fault of it ("not present", although the entry is); VM finds
//! the frame in the list of those that are missing and asks for it.
//!
//! Whoever is not to notice (VM itself, the kernel outside its copy routines) gets the page back
//! in the middle of the access.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory, OpAccess, Register};
use kvm_bindings::{kvm_regs, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

use super::tables;
use crate::kvm::vcpu::Vcpu;
use crate::lab::Absences;
use crate::memory::GuestRam;

const PAGE_FAULT: u8 = 14;
const WRITE: u32 = 1 << 1;
const USER: u32 = 1 << 2;
const FETCH: u32 = 1 << 4;
/// Longest instruction.
const LONGEST: u64 = 15;

/// When a frame comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// When VM has asked for it so often from now on.
    Asks(u32),
    /// At this time of the machine's clock, ns.
    At(u64),
    /// Never.
    Never,
}

#[derive(Clone, Debug, Default)]
struct State {
    frames: BTreeMap<u64, Back>,
    guarded: [u64; 2],
    vm: u64,
    /// Accesses that were completed behind the accessor's back.
    transparent: u64,
    /// Page faults made.
    injected: u64,
}

impl State {
    /// The frames whose time has come.
    fn due(&self, now: u64) -> impl Iterator<Item = u64> {
        let due = move |back: &Back| matches!(back, Back::At(time) if *time <= now);
        let frames = self.frames.iter().filter(move |(_, back)| due(back));
        frames.map(|(&frame, _)| frame)
    }
}

/// What was missing at one moment.
#[derive(Clone, Debug)]
pub struct Saved(State);

/// The frames that are missing: one handle for who takes them away, one inside the machine.
#[derive(Clone, Debug, Default)]
pub struct Withdrawals(Arc<Mutex<State>>);

impl Withdrawals {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes a frame. `guarded` are the kernel's instructions that may fault, `vm` is VM's
    /// top-level page table.
    pub fn add(&self, frame: u64, back: Back, guarded: [u64; 2], vm: u64) {
        let mut state = self.lock();
        (state.guarded, state.vm) = (guarded, vm);
        state.frames.insert(frame, back);
    }

    /// Forgets everything: the machine was put back to a moment without.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    /// What is missing now, for [`Withdrawals::put`].
    pub fn saved(&self) -> Saved {
        Saved(self.lock().clone())
    }

    /// Makes it what it was.
    pub fn put(&self, saved: &Saved) {
        *self.lock() = saved.0.clone();
    }

    /// Page faults made, and accesses completed behind the accessor's back.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.injected, state.transparent)
    }
}

/// One address that an instruction uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Use {
    address: u64,
    write: bool,
    fetch: bool,
}

impl Absences for Withdrawals {
    fn efault(&mut self, vcpu: &mut Vcpu, ram: &GuestRam, now: u64) -> Result<()> {
        let mut state = self.lock();
        let due: Vec<u64> = state.due(now).collect();
        if !due.is_empty() {
            // Before the access: it finds what came meanwhile, or comes here again.
            state.frames.retain(|frame, _| !due.contains(frame));
            return due.into_iter().try_for_each(|frame| ram.give_back(frame));
        }
        let regs = vcpu.fd().get_regs().context("KVM_GET_REGS")?;
        let sregs = vcpu.fd().get_sregs().context("KVM_GET_SREGS")?;
        let found = uses(ram, &regs, &sregs).into_iter().find_map(|used| {
            let frame = tables::translate(&ram.map, sregs.cr3, used.address)? & !(abi::PAGE - 1);
            state.frames.contains_key(&frame).then_some(used)
        });
        let kernel = regs.rip >= 1 << 63;
        let guarded = state.guarded[0] <= regs.rip && regs.rip < state.guarded[1];
        let may_fault = if kernel {
            guarded
        } else {
            sregs.cr3 != state.vm
        };
        if let Some(used) = found.filter(|_| may_fault)
            && inject(vcpu, &sregs, used)?
        {
            state.injected += 1;
            return Ok(());
        }
        state.transparent += 1;
        let frames = std::mem::take(&mut state.frames);
        frames.keys().try_for_each(|&frame| ram.give_back(frame))
    }

    fn restore(&mut self, ram: &GuestRam, physical: u64, now: u64) -> Result<bool> {
        let mut state = self.lock();
        let Some(back) = state.frames.get_mut(&physical) else {
            // It came back behind VM's back, or was never gone.
            return Ok(true);
        };
        let comes = match back {
            Back::Asks(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            Back::At(time) => *time <= now,
            Back::Never => false,
        };
        if comes {
            state.frames.remove(&physical);
            ram.give_back(physical)?;
        }
        Ok(comes)
    }
}

/// Has the guest take a page fault at its next instruction; false when it is in the middle of
/// another event.
fn inject(vcpu: &Vcpu, sregs: &kvm_sregs, used: Use) -> Result<bool> {
    let mut events = vcpu.fd().get_vcpu_events().context("KVM_GET_VCPU_EVENTS")?;
    if events.exception.injected != 0 || events.exception.pending != 0 {
        return Ok(false);
    }
    let mut code = 0;
    for (set, bit) in [
        (used.write, WRITE),
        (sregs.ss.dpl == 3, USER),
        (used.fetch, FETCH),
    ] {
        code |= if set { bit } else { 0 };
    }
    events.exception.injected = 1;
    events.exception.nr = PAGE_FAULT;
    events.exception.has_error_code = 1;
    events.exception.error_code = code;
    let mut sregs = *sregs;
    sregs.cr2 = used.address;
    vcpu.fd().set_sregs(&sregs).context("KVM_SET_SREGS")?;
    vcpu.fd()
        .set_vcpu_events(&events)
        .context("KVM_SET_VCPU_EVENTS")?;
    Ok(true)
}

/// The addresses that the instruction at rip uses: itself, then its operands.
fn uses(ram: &GuestRam, regs: &kvm_regs, sregs: &kvm_sregs) -> Vec<Use> {
    let fetch = |address| Use {
        address,
        write: false,
        fetch: true,
    };
    let mut found = vec![fetch(regs.rip)];
    let mut code = Vec::new();
    for at in (0..LONGEST).map(|n| regs.rip.wrapping_add(n)) {
        let byte = tables::translate(&ram.map, sregs.cr3, at)
            .and_then(|physical| ram.map.read_obj::<u8>(GuestAddress(physical)).ok());
        match byte {
            Some(byte) => code.push(byte),
            None => break,
        }
    }
    let instruction = Decoder::with_ip(64, &code, regs.rip, DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        return found;
    }
    found.push(fetch(instruction.next_ip().wrapping_sub(1)));
    found.extend(operands(&instruction, regs, sregs));
    found
}

/// The first and last byte of each memory operand, explicit and implied.
fn operands(instruction: &Instruction, regs: &kvm_regs, sregs: &kvm_sregs) -> Vec<Use> {
    let value = |register, _, _| value_of(register, regs, sregs);
    let mut factory = InstructionInfoFactory::new();
    let mut found = Vec::new();
    for memory in factory.info(instruction).used_memory() {
        let write = matches!(
            memory.access(),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        );
        let Some(first) = memory.virtual_address(0, value) else {
            continue;
        };
        let size = memory.memory_size().size().max(1) as u64;
        for address in [first, first.wrapping_add(size - 1)] {
            found.push(Use {
                address,
                write,
                fetch: false,
            });
        }
    }
    found
}

fn value_of(register: Register, regs: &kvm_regs, sregs: &kvm_sregs) -> Option<u64> {
    let full = |register| {
        Some(match register {
            Register::RAX => regs.rax,
            Register::RBX => regs.rbx,
            Register::RCX => regs.rcx,
            Register::RDX => regs.rdx,
            Register::RSI => regs.rsi,
            Register::RDI => regs.rdi,
            Register::RBP => regs.rbp,
            Register::RSP => regs.rsp,
            Register::R8 => regs.r8,
            Register::R9 => regs.r9,
            Register::R10 => regs.r10,
            Register::R11 => regs.r11,
            Register::R12 => regs.r12,
            Register::R13 => regs.r13,
            Register::R14 => regs.r14,
            Register::R15 => regs.r15,
            Register::RIP => regs.rip,
            _ => return None,
        })
    };
    match register {
        Register::FS => Some(sregs.fs.base),
        Register::GS => Some(sregs.gs.base),
        Register::CS | Register::DS | Register::ES | Register::SS => Some(0),
        register if register.is_gpr64() => full(register),
        register if register.is_gpr32() => {
            full(register.full_register()).map(|value| value & 0xffff_ffff)
        }
        // Vector indices and the like: the access is completed behind the accessor's back.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(code: &[u8], regs: kvm_regs) -> Vec<Use> {
        let instruction = Decoder::with_ip(64, code, 0x1000, DecoderOptions::NONE).decode();
        operands(&instruction, &regs, &kvm_sregs::default())
    }

    #[test]
    fn operands_are_found() {
        let regs = kvm_regs {
            rax: 0x5000,
            rcx: 2,
            rsi: 0x7000,
            rdi: 0x9000,
            rsp: 0xb000,
            ..Default::default()
        };
        let first = |code: &[u8]| decoded(code, regs)[0];
        // mov [rax + 4 * rcx + 8], rdx
        let store = first(&[0x48, 0x89, 0x54, 0x88, 0x08]);
        assert_eq!((store.address, store.write), (0x5010, true));
        // movzx ecx, byte [rsi]
        let load = first(&[0x0f, 0xb6, 0x0e]);
        assert_eq!((load.address, load.write), (0x7000, false));
        // push rax
        let push = first(&[0x50]);
        assert_eq!((push.address, push.write), (0xaff8, true));
        // rep movsq
        let uses = decoded(&[0xf3, 0x48, 0xa5], regs);
        assert!(uses.iter().any(|u| u.address == 0x7000 && !u.write));
        assert!(uses.iter().any(|u| u.address == 0x9000 && u.write));
        // A load across a page: vmovdqu ymm0, [rax + 0xff8]
        let uses = decoded(&[0xc5, 0xfe, 0x6f, 0x80, 0xf8, 0x0f, 0, 0], regs);
        assert!(uses.iter().any(|u| u.address == 0x6017));
        // nop
        assert!(decoded(&[0x90], regs).is_empty());
    }
}
