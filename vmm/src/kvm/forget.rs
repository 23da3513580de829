//! How KVM is made to forget what it derived from page tables that the VMM changed.
//!
//! Where KVM has no second-level paging it runs the guest on shadow page tables, which follow
//! what the guest writes into its own and nothing else. So after RAM was put back the vCPU
//! itself stores to each entry that became another what is there already, and then turns its TLB
//! over: what any guest may do, and every KVM must honour. The few instructions lie in a page of
//! their own and run without paging.
//!
//! Taking a memory slot away makes KVM forget everything, which takes longer, and the guest
//! then runs into all of it again. That is done where there are too many entries, or one is in memory that 32-bit code
//! does not reach (docs/decisions/026-large-memory.md).

use anyhow::{Context, Result};
use kvm_bindings::{
    KVM_MEM_READONLY, KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, kvm_regs,
    kvm_sregs, kvm_userspace_memory_region, kvm_vcpu_events,
};
use vm_memory::VolatileMemory;
use vm_memory::mmap::MmapRegion;

use super::Vm;
use super::state::VcpuState;
use super::vcpu::{Exit, RFLAGS_RESERVED, Vcpu, flat_segments};

/// Memory slot of the page.
const SLOT: u32 = 1;
/// Where it lies by turns: where 32-bit code reaches it, beyond all RAM and devices.
const PLACES: [u64; 2] = [0xe000_0000, 0xe000_1000];
/// The port that ends the code.
const PORT: u8 = 0x80;
/// Room for what comes after the stores, bytes.
const END: usize = 16;
/// Exits before that port's that are looked at: signals.
const EXITS: usize = 16;

const CR0_PE_ET: u64 = 1 | 1 << 4;
const CR4_PGE: u64 = 1 << 7;
const CR4_OSXSAVE: u64 = 1 << 18;

/// Where the code's stores do not reach: no device is there, so that a guest that maps what is no memory either, and uses
/// it, exits to the VMM.
pub const REACH: u64 = 1 << 32;

/// What a store of what is there already makes KVM forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// What came from one entry.
    Entry {
        /// Its address.
        at: u32,
        /// Its lowest byte.
        byte: u8,
    },
    /// What came from any entry of a page: a store to a part of an entry is no guest's way of
    /// changing it, so that KVM takes the page for no table any more.
    Page {
        /// Its address.
        at: u32,
        /// Its first two bytes.
        head: [u8; 2],
        /// Its last two bytes.
        tail: [u8; 2],
    },
}

impl Touch {
    /// The longest code of one.
    const LEN: usize = 9;

    /// Of the entry at this offset of the page at `page`, below [`REACH`], and its lowest byte.
    pub fn entry(page: u32, offset: usize, byte: u8) -> Touch {
        Touch::Entry {
            at: page + offset as u32,
            byte,
        }
    }

    /// Of the page at `page`, below [`REACH`], and what is in it.
    pub fn page(page: u32, contents: &[u8; abi::PAGE_SIZE]) -> Touch {
        let [first, second, .., before, last] = *contents;
        Touch::Page {
            at: page,
            head: [first, second],
            tail: [before, last],
        }
    }
}

/// The stores as 32-bit code, two pages in a row with one.
fn stores(mut touches: &[Touch], code: &mut Vec<u8>) {
    loop {
        touches = match touches {
            [] => return,
            [
                Touch::Page { at, tail, .. },
                Touch::Page { at: next, head, .. },
                rest @ ..,
            ] if next - at == abi::PAGE as u32 => {
                // movl $tail:head, across the boundary
                code.extend([0xc7, 0x05]);
                code.extend((next - 2).to_le_bytes());
                code.extend([tail[0], tail[1], head[0], head[1]]);
                rest
            }
            [Touch::Page { at, head, .. }, rest @ ..] => {
                // movw $head, at
                code.extend([0x66, 0xc7, 0x05]);
                code.extend(at.to_le_bytes());
                code.extend(head);
                rest
            }
            [Touch::Entry { at, byte }, rest @ ..] => {
                // movb $byte, at
                code.extend([0xc6, 0x05]);
                code.extend(at.to_le_bytes());
                code.push(*byte);
                rest
            }
        };
    }
}

/// A page of code in a slot of its own.
#[derive(Debug)]
pub(super) struct Page {
    memory: MmapRegion<()>,
    place: usize,
}

impl Page {
    pub(super) fn new() -> Result<Page> {
        let memory = MmapRegion::new(abi::PAGE_SIZE).context("a page of code")?;
        Ok(Page { memory, place: 0 })
    }

    /// Most touches that fit.
    const ROOM: usize = (abi::PAGE_SIZE - END) / Touch::LEN;

    fn write(&self, touches: &[Touch], xcr0: bool) -> Result<()> {
        let mut code = Vec::with_capacity(touches.len() * Touch::LEN + END);
        stores(touches, &mut code);
        if xcr0 {
            // xsetbv
            code.extend([0x0f, 0x01, 0xd1]);
        }
        // mov %esi, %cr4; out %al, $PORT
        code.extend([0x0f, 0x22, 0xe6, 0xe6, PORT]);
        let page = self.memory.as_volatile_slice();
        page.subslice(0, code.len())
            .context("more code than a page")?
            .copy_from(&code);
        Ok(())
    }

    /// False when the vCPU did not come to the end.
    fn run(&self, vcpu: &mut Vcpu, state: &VcpuState, touches: &[Touch]) -> Result<bool> {
        let xcr0 = state.xcr0();
        self.write(touches, xcr0.is_some())?;
        vcpu.wake()?;
        let (regs, sregs) = registers(PLACES[self.place], state.sregs(), xcr0);
        vcpu.stage(&regs, &sregs, &nothing_pending());
        for _ in 0..EXITS {
            match vcpu.run() {
                Exit::PortWrite(port, _) if port == u16::from(PORT) => return Ok(true),
                Exit::Again => {}
                _ => break,
            }
        }
        // Whatever that was, it must not be completed with the guest's registers.
        for _ in 0..EXITS {
            if matches!(vcpu.complete(), Exit::Again) {
                break;
            }
        }
        Ok(false)
    }
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// What came from the entries that were touched. The vCPU has the mode of its interrupt
    /// controller and the extended control register that it is to have.
    Touched,
    /// Everything.
    Everything,
}

impl Vm {
    /// Makes KVM forget every translation it made of the guest's page tables, after the VMM
    /// changed them. Taking a memory slot away does that, whichever it is, so the page of code
    /// moves to and fro.
    pub fn forget_translations(&mut self) -> Result<()> {
        let Some(mut page) = self.page.take() else {
            return Ok(());
        };
        page.place ^= 1;
        let result = self.place(&page);
        self.page = Some(page);
        result
    }

    pub(super) fn place(&self, page: &Page) -> Result<()> {
        let slot = kvm_userspace_memory_region {
            slot: SLOT,
            guest_phys_addr: PLACES[page.place],
            memory_size: abi::PAGE,
            userspace_addr: page.memory.as_ptr() as u64,
            flags: KVM_MEM_READONLY,
        };
        // SAFETY: the region is the mapping of `page`, which this value keeps; the vCPU's owner
        // drops it before this value.
        unsafe { self.fd.set_user_memory_region(slot) }
            .context("KVM_SET_USER_MEMORY_REGION of a page of code")
    }

    /// Makes KVM forget what it derived from these entries by having the vCPU touch them, or
    /// from all; `None`: from all. RAM must be what the guest is to find. The vCPU, whose exits must have been
    /// completed, is about to become what `state` says and has none of it yet.
    pub fn forget(
        &mut self,
        vcpu: &mut Vcpu,
        state: &VcpuState,
        touches: Option<&[Touch]>,
    ) -> Result<Forgotten> {
        let known = state.pages_in_64_bit() && !vcpu.went_beyond;
        if let (Some(page), Some(touches)) = (&self.page, touches)
            && known
            && touches.len() <= Page::ROOM
            && page.run(vcpu, state, touches)?
        {
            return Ok(Forgotten::Touched);
        }
        self.forget_translations()?;
        vcpu.went_beyond = false;
        Ok(Forgotten::Everything)
    }
}

/// Protected mode without paging, at the code.
fn registers(rip: u64, state: &kvm_sregs, xcr0: Option<u64>) -> (kvm_regs, kvm_sregs) {
    let cr4 = if xcr0.is_some() { CR4_OSXSAVE } else { 0 };
    let value = xcr0.unwrap_or(0);
    let regs = kvm_regs {
        rip,
        rflags: RFLAGS_RESERVED,
        rax: value & 0xffff_ffff,
        rdx: value >> 32,
        // A change of this bit empties the TLB.
        rsi: cr4 | CR4_PGE,
        ..Default::default()
    };
    let mut sregs = kvm_sregs {
        cr0: CR0_PE_ET,
        cr4,
        apic_base: state.apic_base,
        ..Default::default()
    };
    flat_segments(&mut sregs);
    (regs, sregs)
}

/// No exception, interrupt or NMI.
fn nothing_pending() -> kvm_vcpu_events {
    let mut events = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        ..Default::default()
    };
    events.nmi.masked = 1;
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_in_a_row_are_one_store() {
        let page = |number: u32, first: u8, last: u8| {
            let mut contents = [0; abi::PAGE_SIZE];
            (contents[1], contents[abi::PAGE_SIZE - 2]) = (first, last);
            Touch::page(number << 12, &contents)
        };
        let touches = [
            page(3, 1, 2),
            page(4, 3, 4),
            page(5, 5, 6),
            Touch::entry(7 << 12, 16, 7),
        ];
        let mut code = Vec::new();
        stores(&touches, &mut code);
        let expected = [
            &[0xc7, 0x05, 0xfe, 0x3f, 0, 0, 2, 0, 0, 3][..],
            &[0x66, 0xc7, 0x05, 0, 0x50, 0, 0, 0, 5],
            &[0xc6, 0x05, 0x10, 0x70, 0, 0, 7],
        ];
        assert_eq!(code, expected.concat());
    }

    #[test]
    fn as_many_as_there_is_room_for_fit() {
        let page = Page::new().unwrap();
        let contents = [0; abi::PAGE_SIZE];
        let every_second =
            (0..Page::ROOM as u32).map(|number| Touch::page(number << 13, &contents));
        let touches: Vec<Touch> = every_second.collect();
        page.write(&touches, true).unwrap();
    }
}
