//! What brings a processor into the kernel, and what it leads to.

use crate::arch::{apic, gate, layout, machine};
use crate::global::Global;
use crate::kcall;
use crate::process::{self, Calls, Process};
use crate::sched::{self, counters, current};
use crate::{clock, copy, fatal, ipc, lab, modify};
use abi::kernel::vector::{DEBUG, PAGE_FAULT, PROTECTION, UNDEFINED};
use abi::kernel::{Exception, KernelNotify, LinuxRoute, PageFault, TRAMPOLINE, rts};
use abi::trace::Kind;
use abi::{Class, Endpoint, Errno, PAGE};

/// Return addresses of the trampoline's two trap instructions.
const AFTER_SYSCALL: u64 = TRAMPOLINE + 2;
const AFTER_BREAKPOINT: u64 = TRAMPOLINE + 1;
/// Of rflags: interrupts come. A task cannot clear it; `syscall` does.
const INTERRUPT_FLAG: u64 = 1 << 9;

static ROUTES: Global<[u8; 512]> = Global::new([LinuxRoute::Pm as u8; 512]);
static BOUND: Global<[Endpoint; layout::LINES as usize]> =
    Global::new([Endpoint::NONE; layout::LINES as usize]);

/// When the machine ends in any case, ns since boot; 0 while VM and RS live.
static END: Global<u64> = Global::new(0);
/// How long PM or RS may take: longer than they wait for file systems.
const END_LIMIT_NS: u64 = 15_000_000_000;

/// Replaces the Linux routing table.
pub fn set_routes(routes: &[u8; 512]) {
    ROUTES.set(*routes);
}

/// Interrupts of `line` go to `process`; where time is virtual there are none.
pub fn bind_line(line: u32, process: Endpoint) {
    BOUND.put(line as usize, process);
    if !clock::is_virtual() {
        apic::unmask(line);
    }
}

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
fn leave_lab() -> ! {
    if clock::due() {
        timers();
    }
    sched::choose::<true>();
    gate::resume_current()
}

/// The direct gate's `syscall`: a kernel call from the trampoline, else a Linux call.
pub extern "C" fn on_syscall() -> ! {
    counters().visits += 1;
    let caller = current();
    if caller.regs.rip == AFTER_SYSCALL {
        trampoline_call(caller);
    } else {
        linux_call(caller);
    }
    leave()
}

/// The deprivileged gate's `int3`: a kernel call, or a breakpoint of the program's own.
pub extern "C" fn on_breakpoint() -> ! {
    counters().visits += 1;
    let caller = current();
    if caller.regs.rip == AFTER_BREAKPOINT {
        trampoline_call(caller);
    } else {
        caller.regs.orig_rax = u64::MAX;
        exception(caller, layout::VECTOR_CALL, 0);
    }
    leave()
}

/// Completes the `syscall` of a task that the processor has led to LSTAR while still at CPL3: its next instruction is
/// the one that rcx names.
#[inline(always)]
fn complete_entry(caller: &mut Process) {
    caller.regs.rip = caller.regs.rcx;
    caller.set_rflags(caller.regs.r11);
    if caller.regs.rip == AFTER_SYSCALL {
        trampoline_call(caller);
    } else {
        linux_call(caller);
    }
}

#[inline(always)]
fn trampoline_call(caller: &mut Process) {
    if caller.regs.rax < 0x100 {
        ipc::trap(caller, caller.regs.rax);
    } else {
        kcall::dispatch(caller);
    }
}

#[inline(always)]
fn linux_call(caller: &mut Process) {
    let number = caller.regs.rax;
    caller.regs.orig_rax = number;
    if caller.calls != Calls::Linux {
        return other_call(caller);
    }
    send_call(caller, number);
}

/// A `syscall` that no server gets, or not yet.
#[inline(never)]
fn other_call(caller: &mut Process) {
    if !caller.linux() {
        return exception(caller, UNDEFINED, 0);
    }
    caller.entering = true;
    caller.regs.rax = Errno::ENOSYS.to_word();
    sched::block(caller, rts::STOPPED);
    tell_stopped(caller);
}

/// Tells PM that `process` has stopped at a call.
fn tell_stopped(process: &mut Process) {
    process.stopped_unread = true;
    ipc::notice(Endpoint::PM, KernelNotify::STOPPED);
}

/// `process` goes on with the call before which it stands. When that is one that cannot be made
/// it has ended.
#[inline(never)]
pub fn enter_call(process: &mut Process) {
    let number = process.regs.orig_rax;
    if number != u64::MAX {
        send_call(process, number);
    } else if core::mem::take(&mut process.tell_when_stopped) {
        tell_stopped(process);
    }
}

/// Sends the Linux call in `caller`'s registers to its server.
#[inline(always)]
fn send_call(caller: &mut Process, number: u64) {
    let route = match number {
        0..512 => ROUTES.at(number as usize),
        _ => LinuxRoute::Pm as u8,
    };
    let server = |route: u8| match route {
        2 => Endpoint::VFS,
        3 => Endpoint::VM,
        _ => Endpoint::PM,
    };
    let sent = match route {
        0..4 => ipc::send_event(caller, server(route), Class::Linux),
        _ => ipc::send_bringing(caller, server(route & 3), route >> 2),
    };
    if sent.is_err() {
        caller.regs.rax = Errno::ENOSYS.to_word();
    }
}

/// A fault or an interrupt of a task.
pub extern "C" fn on_trap(vector: u64, code: u64, cr2: u64) -> ! {
    gate::entered();
    counters().visits += 1;
    let process = current();
    if vector == PAGE_FAULT && cr2 == gate::linux_entry() && is_entering(process, cr2) {
        complete_entry(process);
        leave();
    }
    let called = core::mem::replace(&mut process.regs.orig_rax, u64::MAX) != u64::MAX;
    process.step_over();
    if vector == DEBUG && called && process.regs.rip == process.regs.rcx {
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
    task.regs.rip == entry
        && (task.regs.rflags & INTERRUPT_FLAG == 0 || lab::sabotaged(abi::sabotage::ENTRY_FORGED))
}

/// An interrupt while nobody ran.
pub extern "C" fn on_wake(vector: u64) -> ! {
    gate::entered();
    counters().visits += 1;
    sched::woke();
    interrupt(vector);
    leave()
}

fn interrupt(vector: u64) {
    counters().interrupts += 1;
    if vector == layout::VECTOR_SPURIOUS {
        return;
    }
    apic::acknowledge();
    if vector == layout::VECTOR_TIMER {
        return timers();
    }
    let line = vector - layout::VECTOR_LINES;
    if line < layout::LINES {
        let bound = BOUND.at(line as usize);
        ipc::notice(bound, KernelNotify::from_bits_retain(1 << (32 + line)));
    }
}

/// VM or RS has died: somebody is about to save what can be saved and to end the machine. Without
/// them that may come to nothing, so there is a limit.
#[cold]
fn expect_end() {
    if END.get() == 0 {
        END.set(clock::now() + END_LIMIT_NS);
        clock::arm(END.get());
    }
}

/// Fires the processes' timers that are due and arms the next. Turns end in `choose`.
pub fn timers() {
    clock::fired();
    let now = clock::now();
    let mut next = u64::MAX;
    if END.get() != 0 {
        if END.get() <= now {
            fatal!("VM or RS died and nobody ended the machine");
        }
        next = END.get();
    }
    for process in (1..process::used()).map(process::slot) {
        if process.flags & rts::FREE != 0 || process.deadline == 0 {
            continue;
        }
        if process.deadline <= now {
            process.deadline = 0;
            ipc::notice_process(process, KernelNotify::TIMER);
        } else {
            next = next.min(process.deadline);
        }
    }
    if next != u64::MAX {
        clock::arm(next);
    }
}

fn page_fault(process: &mut Process, address: u64, code: u64) {
    counters().page_faults += 1;
    let rip = process.regs.rip;
    if process.endpoint == Endpoint::VM {
        // Nobody can bring what it misses.
        let line = format_args!("VM faulted at {address:#x} (code {code:#x}), rip {rip:#x}");
        crate::say(line);
        return exception(process, PAGE_FAULT, code);
    }
    let mut fault = PageFault { address, code, rip };
    if clock::is_virtual() {
        as_processors_say(process.cr3, &mut fault);
    }
    let code = fault.code;
    process.fault = fault.to_words();
    let who = process.endpoint.0 as u64;
    lab::note(Kind::Fault, || [who, 0, address, code, rip, 0]);
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
fn exception(process: &mut Process, mut vector: u64, mut code: u64) {
    let rip = process.regs.rip;
    if gate::code_selector() != layout::USER_CS {
        // Code that is not ours to run: the registers that it would go on with are not those of
        // its mode.
        (vector, code) = (PROTECTION, 0);
    } else if vector == UNDEFINED {
        (vector, code) = refused(process).unwrap_or((vector, code));
    }
    let to = if process.linux() || process.endpoint == Endpoint::RS {
        Endpoint::PM
    } else {
        Endpoint::RS
    };
    if matches!(process.endpoint, Endpoint::VM | Endpoint::RS) {
        expect_end();
    }
    process.fault = Exception { vector, code, rip }.to_words();
    if ipc::send_event(process, to, Class::Exception).is_err() {
        fatal!(
            "process {:?} took exception {vector} (code {code:#x}) at {rip:#x}",
            process.endpoint
        );
    }
}

/// The exception of a software interrupt that only the kernel may raise, and of `sysenter` where there is none: a host
/// that interprets CPL0 says that it does not know the instruction.
#[cold]
fn refused(process: &Process) -> Option<(u64, u64)> {
    let mut bytes = [0; 2];
    copy::read_slice(process.cr3, process.regs.rip, &mut bytes).ok()?;
    match bytes {
        [0xcd, number] => Some((PROTECTION, number as u64 * 8 + 2)),
        [0x0f, 0x34] => Some((PROTECTION, 0)),
        _ => None,
    }
}

/// The kernel itself faulted; `top` is one past the frame that the processor pushed.
pub extern "C" fn on_fault_inside(vector: u64, top: *const u64) -> ! {
    // SAFETY: the entry code passes the top of the frame, which has at least five words.
    let (rip, rsp) = unsafe { (top.sub(5).read(), top.sub(2).read()) };
    fatal!("kernel fault: vector {vector} at {rip:#x}, rsp {rsp:#x}");
}

/// Says what is wrong and ends the machine.
pub fn panic(text: &[u8]) -> ! {
    machine::log(&[b"kernel: ", text]);
    machine::power_off(abi::lab::POWEROFF_PANIC)
}
