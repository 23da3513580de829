//! rt_sigreturn: back from a handler.

use super::frame::{self, LEGACY_BYTES};
use super::info::Info;
use super::set::SIGSEGV;
use crate::calls::{Caller, Outcome};
use crate::server::Pm;
use crate::system::System;
use abi::kernel::vector;
use abi::{Endpoint, Errno, Message};
use alloc::vec;
use alloc::vec::Vec;

impl<S: System> Pm<S> {
    /// The thread's registers, FPU, mask and alternate stack become those of the frame at its
    /// stack pointer. A bad frame is SIGSEGV.
    pub fn rt_sigreturn(&mut self, caller: Caller) -> Outcome {
        match self.restore_frame(caller) {
            // rax is one of the registers that come back: the answer must not be an errno.
            Some(rax) => Outcome::Raw(Message::new(rax)),
            None => {
                self.force(caller.slot, Info::kernel(SIGSEGV));
                Outcome::Done(Err(Errno::EFAULT))
            }
        }
    }

    fn restore_frame(&mut self, caller: Caller) -> Option<u64> {
        let who = caller.who;
        let current = self.sys.registers(who).ok()?;
        // `ret` has popped the restorer's address, so the ucontext is at the stack pointer.
        let uc = self.read_words(who, current.rsp).ok()?;
        let Some(restored) = frame::restore(&uc, &current) else {
            let thread = self.table.thread_mut(caller.slot)?;
            // The fault with which the processor refuses to go on.
            thread.trap = (vector::PROTECTION, 0, 0);
            return None;
        };
        let fpu = self.read_fpu(who, restored.fpstate)?;
        self.sys.set_fpu(who, &fpu).ok()?;
        self.sys.set_registers(who, &restored.registers).ok()?;
        let thread = self.table.thread_mut(caller.slot)?;
        thread.blocked = restored.mask;
        // As sigaltstack(2) would from the handler: what that refuses changes nothing.
        if !frame::on_altstack(thread.altstack, current.rsp)
            && let Ok(altstack) = frame::altstack_of(restored.altstack)
        {
            thread.altstack = altstack;
        }
        Some(restored.registers.rax)
    }

    /// The FPU state of a frame; empty when it has none.
    fn read_fpu(&mut self, who: Endpoint, address: u64) -> Option<Vec<u8>> {
        if address == 0 {
            return Some(Vec::new());
        }
        let ours = self.sys.fpu(who).ok()?.len();
        // What XRSTOR and FXRSTOR want.
        let alignment = if ours > LEGACY_BYTES { 64 } else { 16 };
        if !address.is_multiple_of(alignment) {
            return None;
        }
        let mut area = vec![0; LEGACY_BYTES];
        self.read_bytes(who, address, &mut area).ok()?;
        let mut extended = false;
        if let Some(bytes) = frame::extended_bytes(&area, ours) {
            let mut magic = [0; 4];
            self.read_bytes(who, address + bytes as u64, &mut magic)
                .ok()?;
            if frame::is_magic2(magic) {
                area = vec![0; bytes];
                self.read_bytes(who, address, &mut area).ok()?;
                extended = true;
            }
        }
        let xfeatures = self.sys.xfeatures();
        frame::checked_fpu(area, ours, xfeatures, extended)
    }
}
