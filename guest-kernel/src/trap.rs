//! What brings a processor into the kernel, and what it leads to.

use crate::arch::{apic, gate, layout};
use crate::counters::{COUNTERS, add};
use crate::faults::{exception, page_fault};
use crate::linux::linux_call;
use crate::process::Process;
use crate::sched::{self, current};
use crate::{clock, fatal, ipc, kcall, lab, lines, timers};
use abi::kernel::TRAMPOLINE;
use abi::kernel::vector::{DEBUG, PAGE_FAULT, PROTECTION};

/// Return addresses of the trampoline's two trap instructions.
const AFTER_SYSCALL: u64 = TRAMPOLINE + 2;
const AFTER_BREAKPOINT: u64 = TRAMPOLINE + 1;
/// Of rflags: interrupts come. A task cannot clear it; `syscall` does.
const INTERRUPT_FLAG: u64 = 1 << 9;

/// Ends a visit. The entries never return: what the kernel's stack holds is worthless now.
#[inline(always)]
fn leave() -> ! {
    if lab::present() {
        leave_lab();
    }
    sched::choose::<false>();
    gate::resume_current()
}

/// Ends a visit where time is virtual or somebody watches.
#[cold]
#[inline(never)]
pub fn leave_lab() -> ! {
    if clock::due() {
        timers::fire();
    }
    let mut found = sched::choose::<true>();
    while !found {
        timers::skip();
        found = sched::choose_woken();
    }
    gate::resume_current()
}

/// The direct gate's `syscall`: a kernel call from the trampoline, else a Linux call.
#[unsafe(no_mangle)]
pub extern "C" fn on_syscall() -> ! {
    add(&COUNTERS.visits, 1);
    let caller = current();
    if caller.regs.rip.get() == AFTER_SYSCALL {
        trampoline_call(caller);
    } else {
        linux_call(caller);
    }
    leave()
}

/// The deprivileged gate's `int3`: a kernel call, or a breakpoint of the program's own.
#[unsafe(no_mangle)]
pub extern "C" fn on_breakpoint() -> ! {
    add(&COUNTERS.visits, 1);
    let caller = current();
    if caller.regs.rip.get() == AFTER_BREAKPOINT {
        trampoline_call(caller);
    } else {
        caller.regs.orig_rax.set(u64::MAX);
        exception(caller, layout::VECTOR_CALL, 0);
    }
    leave()
}

/// Completes the `syscall` of a task that the processor has led to LSTAR while still at CPL3: its next instruction is
/// the one that rcx names.
#[inline(always)]
fn complete_entry(caller: &'static Process) {
    caller.regs.rip.set(caller.regs.rcx.get());
    caller.set_rflags(caller.regs.r11.get());
    if caller.regs.rip.get() == AFTER_SYSCALL {
        trampoline_call(caller);
    } else {
        linux_call(caller);
    }
}

#[inline(always)]
fn trampoline_call(caller: &'static Process) {
    if caller.regs.rax.get() < 0x100 {
        ipc::trap(caller, caller.regs.rax.get());
    } else {
        kcall::dispatch(caller);
    }
}

/// A fault or an interrupt of a task.
#[unsafe(no_mangle)]
pub extern "C" fn on_trap(vector: u64, code: u64, cr2: u64) -> ! {
    gate::entered();
    add(&COUNTERS.visits, 1);
    let process = current();
    if vector == PAGE_FAULT && cr2 == gate::linux_entry() && is_entering(process, cr2) {
        complete_entry(process);
        leave();
    }
    let called = process.regs.orig_rax.replace(u64::MAX) != u64::MAX;
    process.step_over();
    if vector == DEBUG && called && process.regs.rip.get() == process.regs.rcx.get() {
        // `sysretq` has put the program's own trap flag back, and it traps before an instruction.
        leave();
    }
    let foreign = gate::code_selector() != layout::USER_CS;
    if vector >= layout::VECTOR_TIMER {
        interrupt(vector);
        if foreign {
            exception(current(), PROTECTION, 0);
        }
    } else if vector == PAGE_FAULT && !foreign {
        page_fault(process, cr2, code);
    } else {
        exception(process, vector, code);
    }
    leave()
}

/// Whether a task has executed `syscall`: where CPL0 is interpreted that jumps to LSTAR still at CPL3 and faults there.
/// A task that jumps there itself, whatever is in its registers, has interrupts on.
#[inline(always)]
fn is_entering(task: &Process, entry: u64) -> bool {
    task.regs.rip.get() == entry
        && (task.regs.rflags.get() & INTERRUPT_FLAG == 0
            || lab::sabotaged(abi::sabotage::ENTRY_FORGED))
}

/// An interrupt while nobody ran.
#[unsafe(no_mangle)]
pub extern "C" fn on_wake(vector: u64) -> ! {
    gate::entered();
    add(&COUNTERS.visits, 1);
    sched::woke();
    interrupt(vector);
    leave()
}

fn interrupt(vector: u64) {
    add(&COUNTERS.interrupts, 1);
    if vector == layout::VECTOR_SPURIOUS {
        return;
    }
    apic::acknowledge();
    if vector == layout::VECTOR_TIMER {
        return timers::fire();
    }
    lines::interrupted(vector - layout::VECTOR_LINES);
}

/// The kernel itself faulted; `top` is one past the frame that the processor pushed.
#[unsafe(no_mangle)]
pub extern "C" fn on_fault_inside(vector: u64, top: *const u64) -> ! {
    // SAFETY: the entry code passes the top of the frame, which has at least five words.
    let (rip, rsp) = unsafe { (top.sub(5).read(), top.sub(2).read()) };
    fatal!("kernel fault: vector {vector} at {rip:#x}, rsp {rsp:#x}");
}
