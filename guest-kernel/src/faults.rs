//! Faults and other exceptions of tasks become messages.

use crate::arch::{gate, layout};
use crate::counters::{COUNTERS, add};
use crate::log::say;
use crate::process::Process;
use crate::{clock, copy, fatal, ipc, lab, modify, timers};
use abi::kernel::vector::{PAGE_FAULT, PROTECTION, UNDEFINED};
use abi::kernel::{Exception, PageFault};
use abi::trace;
use abi::{Class, Endpoint, PAGE};

/// A page fault of a task: VM is asked for the page.
pub fn page_fault(process: &'static Process, address: u64, code: u64) {
    add(&COUNTERS.page_faults, 1);
    let rip = process.regs.rip.get();
    if process.endpoint.get() == Endpoint::VM {
        // Nobody can bring what it misses.
        let line = format_args!("VM faulted at {address:#x} (code {code:#x}), rip {rip:#x}");
        say(line);
        return exception(process, PAGE_FAULT, code);
    }
    let mut fault = PageFault { address, code, rip };
    if clock::is_virtual() {
        as_processors_say(process.cr3.get(), &mut fault);
    }
    let code = fault.code;
    process.fault.set(fault.to_words());
    lab::note(|| trace::Fault {
        who: process.endpoint.get(),
        address,
        code,
        rip,
    });
    if ipc::send_event(process, Endpoint::VM, Class::PageFault).is_err() {
        fatal!("a page fault at {address:#x} without VM");
    }
}

/// Makes a page fault one for writing where every processor says so and an emulator does not
/// ([`modify`]): a run that is to be the same everywhere is the same there, too.
#[cold]
fn as_processors_say(cr3: u64, fault: &mut PageFault) {
    if fault.write() || fault.fetch() {
        return;
    }
    let mut bytes = [0; modify::LONGEST];
    // The instruction is there, the page behind it need not be.
    let here = (PAGE - fault.rip % PAGE).min(bytes.len() as u64) as usize;
    for len in [bytes.len(), here] {
        if copy::read_slice(cr3, fault.rip, &mut bytes[..len]).is_ok() {
            if modify::modifies(&bytes[..len]) {
                fault.code |= PageFault::WRITE;
            }
            return;
        }
    }
}

/// Any other exception: PM makes a signal of it, or RS learns that a service failed; that RS did,
/// PM.
pub fn exception(process: &'static Process, mut vector: u64, mut code: u64) {
    let rip = process.regs.rip.get();
    if gate::code_selector() != layout::USER_CS {
        // Code that is not ours to run: the registers that it would go on with are not those of
        // its mode.
        (vector, code) = (PROTECTION, 0);
    } else if vector == UNDEFINED {
        (vector, code) = refused(process).unwrap_or((vector, code));
    }
    let to = if process.linux() || process.endpoint.get() == Endpoint::RS {
        Endpoint::PM
    } else {
        Endpoint::RS
    };
    if matches!(process.endpoint.get(), Endpoint::VM | Endpoint::RS) {
        timers::expect_end();
    }
    process
        .fault
        .set(Exception { vector, code, rip }.to_words());
    if ipc::send_event(process, to, Class::Exception).is_err() {
        fatal!(
            "process {:?} took exception {vector} (code {code:#x}) at {rip:#x}",
            process.endpoint.get()
        );
    }
}

/// The exception of a software interrupt that only the kernel may raise, and of `sysenter` where there is none: a host
/// that interprets CPL0 says that it does not know the instruction.
#[cold]
fn refused(process: &'static Process) -> Option<(u64, u64)> {
    let mut bytes = [0; 2];
    copy::read_slice(process.cr3.get(), process.regs.rip.get(), &mut bytes).ok()?;
    match bytes {
        [0xcd, number] => Some((PROTECTION, number as u64 * 8 + 2)),
        [0x0f, 0x34] => Some((PROTECTION, 0)),
        _ => None,
    }
}
