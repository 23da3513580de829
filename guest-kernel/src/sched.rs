//! Preemptive priority scheduling: eight queues, a turn of [`clock::QUANTUM`] within one.

use crate::arch::{fpu, gate, machine};
use crate::clock;
use crate::counters::{COUNTERS, add};
use crate::global::Global;
use crate::lab;
use crate::process::{self, NIL, PRIORITIES, Process};
use abi::kernel::rts;

/// The current process, whose first field is its register frame: the entries save there (`arch/gate.rs`). While
/// nobody runs it is [`process::nobody`].
#[unsafe(no_mangle)]
static CURRENT_PROCESS: Global<&'static Process> = Global::new(process::nobody());
/// The ready queues: first and last slot of each priority, and which are not empty.
static HEADS: Global<[u16; PRIORITIES]> = Global::new([NIL; PRIORITIES]);
static TAILS: Global<[u16; PRIORITIES]> = Global::new([NIL; PRIORITIES]);
static OCCUPIED: Global<u8> = Global::new(0);
/// A ready process in front of the queues: whom the current visit woke first. Most visits
/// wake one process and block the caller, and then it runs without having been queued.
static WOKEN: Global<Option<&'static Process>> = Global::new(None);
/// Whose FPU and bases the processor holds.
static LOADED: Global<Option<&'static Process>> = Global::new(None);
static SWITCHED: Global<u64> = Global::new(0);
static ANNOUNCE: Global<bool> = Global::new(true);

/// Starts counting who runs.
pub fn init() {
    SWITCHED.set(clock::ticks());
}

/// The process that entered the kernel.
#[inline(always)]
pub fn current() -> &'static Process {
    CURRENT_PROCESS.get()
}

/// Where it is said who is current, for `inspect`.
pub fn current_address() -> *const &'static Process {
    CURRENT_PROCESS.as_ptr()
}

/// Whether this variable names `process`.
#[inline(always)]
fn is(variable: &Global<Option<&'static Process>>, process: &Process) -> bool {
    let named = variable
        .get()
        .map_or(core::ptr::null(), core::ptr::from_ref);
    core::ptr::eq(named, process)
}

/// A process became ready.
#[inline(always)]
fn wake(process: &'static Process) {
    if WOKEN.get().is_none() {
        WOKEN.set(Some(process));
    } else {
        push(process, false);
    }
}

#[inline(never)]
fn push(process: &'static Process, front: bool) {
    let (index, priority) = (process.index() as u16, process.priority.get() as usize & 7);
    let (head, tail) = (&HEADS.row()[priority], &TAILS.row()[priority]);
    if OCCUPIED.get() & 1 << priority == 0 {
        process.ready_next.set(NIL);
        head.set(index);
        tail.set(index);
        OCCUPIED.set(OCCUPIED.get() | 1 << priority);
    } else if front {
        process.ready_next.set(head.get());
        head.set(index);
    } else {
        process.ready_next.set(NIL);
        process::slot(tail.get() as usize).ready_next.set(index);
        tail.set(index);
    }
}

#[inline(never)]
fn unlink(process: &Process) {
    if is(&WOKEN, process) {
        return WOKEN.set(None);
    }
    let (index, priority) = (process.index() as u16, process.priority.get() as usize & 7);
    let (head, tail) = (&HEADS.row()[priority], &TAILS.row()[priority]);
    let (mut previous, mut at) = (NIL, head.get());
    while at != index {
        if at == NIL {
            return;
        }
        (previous, at) = (at, process::slot(at as usize).ready_next.get());
    }
    let next = process.ready_next.get();
    if previous == NIL {
        head.set(next);
    } else {
        process::slot(previous as usize).ready_next.set(next);
    }
    if next == NIL {
        tail.set(previous);
    }
    if head.get() == NIL {
        OCCUPIED.set(OCCUPIED.get() & !(1 << priority));
    }
}

/// Adds reasons not to run.
#[inline(always)]
pub fn block(process: &'static Process, flags: u32) {
    if process.flags.get() == 0 && !is_current(process) {
        unlink(process);
    }
    process.flags.set(process.flags.get() | flags);
}

/// Removes reasons not to run.
#[inline(always)]
pub fn unblock(process: &'static Process, flags: u32) {
    if process.flags.get() == 0 {
        return;
    }
    process.flags.set(process.flags.get() & !flags);
    if process.flags.get() == 0 && !is_current(process) {
        wake(process);
    }
}

#[inline(always)]
fn is_current(process: &Process) -> bool {
    core::ptr::eq(CURRENT_PROCESS.get(), process)
}

/// Changes the priority.
pub fn set_priority(process: &'static Process, priority: u8) {
    let ready = process.flags.get() == 0 && !is_current(process);
    if ready {
        unlink(process);
    }
    process.priority.set(priority);
    if ready {
        push(process, false);
    }
}

/// Chooses who runs next and makes it current, once at the end of every kernel visit. When nobody can run it waits
/// for an interrupt, which starts a visit of its own; `false` where there is none to wait for. With `LAB` time may be
/// virtual and the choice a decision; without, nothing is spent on that.
#[inline(always)]
pub fn choose<const LAB: bool>() -> bool {
    let current = Some(CURRENT_PROCESS.get()).filter(|current| current.flags.get() == 0);
    if LAB && lab::deciding() {
        return choose_freely(current);
    }
    if let Some(woken) = WOKEN.get() {
        WOKEN.set(None);
        let best = OCCUPIED.get().trailing_zeros() as u8;
        // A process that the queues or the current one hold back waits its turn there.
        if woken.priority.get() >= best
            || current.is_some_and(|current| current.priority.get() <= woken.priority.get())
        {
            push(woken, false);
        } else {
            if let Some(current) = current {
                push(current, true);
            }
            switch::<LAB>(woken);
            return true;
        }
    }
    match current {
        Some(current) => go_on::<LAB>(current),
        None => next::<LAB>(),
    }
}

/// After time has been moved on for want of somebody who can run: makes the first current who can now, if there is one.
pub fn choose_woken() -> bool {
    take_woken();
    OCCUPIED.get() != 0 && next::<true>()
}

/// [`clock::ticks`], in half the instructions where time is real.
#[inline(always)]
fn ticks<const LAB: bool>() -> u64 {
    if LAB { clock::ticks() } else { clock::tsc() }
}

/// [`choose`] where who runs next is a decision.
#[inline(never)]
fn choose_freely(current: Option<&'static Process>) -> bool {
    take_woken();
    if let Some(current) = current {
        push(current, true);
    }
    match lab::choose_process() {
        Some(chosen) => {
            unlink(chosen);
            switch::<true>(chosen);
            true
        }
        None => next::<true>(),
    }
}

/// Puts the process that was woken first into the queues.
fn take_woken() {
    if let Some(woken) = WOKEN.get() {
        WOKEN.set(None);
        push(woken, false);
    }
}

/// The current process could go on: does it?
#[inline(always)]
fn go_on<const LAB: bool>(current: &'static Process) -> bool {
    let best = OCCUPIED.get().trailing_zeros() as usize;
    if (current.priority.get() as usize) < best {
        return true;
    }
    let same = current.priority.get() as usize == best;
    if same && ticks::<LAB>() < current.slice_end.get() {
        clock::arm(clock::time_of(current.slice_end.get()));
        return true;
    }
    push(current, !same);
    next::<LAB>()
}

/// Makes the first process of the highest priority current, or idles.
#[inline(never)]
fn next<const LAB: bool>() -> bool {
    if OCCUPIED.get() == 0 {
        CURRENT_PROCESS.set(process::nobody());
        if !LAB || !clock::is_virtual() {
            wait();
        }
        return false;
    }
    let priority = OCCUPIED.get().trailing_zeros() as usize & 7;
    let head = &HEADS.row()[priority];
    let next = process::slot(head.get() as usize);
    head.set(next.ready_next.get());
    if next.ready_next.get() == NIL {
        OCCUPIED.set(OCCUPIED.get() & !(1 << priority));
    }
    let contended = next.ready_next.get() != NIL;
    switch::<LAB>(next);
    if contended {
        clock::arm(clock::time_of(next.slice_end.get()));
    }
    true
}

#[inline(always)]
fn switch<const LAB: bool>(next: &'static Process) {
    let now = ticks::<LAB>();
    let elapsed = now - SWITCHED.get();
    SWITCHED.set(now);
    next.slice_end.set(now + clock::quantum_ticks());
    if is(&LOADED, next) {
        add(&next.ticks, elapsed);
    } else {
        add(&COUNTERS.switches, 1);
        if let Some(loaded) = LOADED.get() {
            add(&loaded.ticks, elapsed);
            store(loaded);
        }
        load(next);
    }
    if !is_current(next) {
        if LAB {
            lab::switched(CURRENT_PROCESS.get(), next);
        }
        gate::set_task_cr3(next.cr3.get());
        CURRENT_PROCESS.set(next);
    }
}

#[inline(always)]
fn load(next: &'static Process) {
    next.fpu.get().restore();
    if next.linux() {
        fpu::restore_bases(&next.regs);
        if ANNOUNCE.get() {
            ANNOUNCE.set(false);
            machine::program_started(COUNTERS.visits.get(), COUNTERS.messages.get());
        }
    }
    LOADED.set(Some(next));
}

#[inline(always)]
fn store(process: &Process) {
    process.fpu.get().save();
    if process.linux() {
        fpu::save_bases(&process.regs);
    }
}

/// Writes `process`'s FPU and bases back to its table entry if the processor holds them, so
/// that they can be read or replaced; they are loaded again before it runs.
pub fn release_of(process: &Process) {
    if is(&LOADED, process) {
        store(process);
        LOADED.set(None);
    }
}

/// The process's state in the processor is worthless (it died or was replaced).
pub fn discard(process: &Process) {
    if is(&LOADED, process) {
        LOADED.set(None);
    }
}

/// The running process changed address spaces: reload CR3 before it goes on.
pub fn reload_space() {
    gate::set_task_cr3(CURRENT_PROCESS.get().cr3.get());
}

fn wait() -> ! {
    let now = clock::ticks();
    if let Some(loaded) = LOADED.get() {
        add(&loaded.ticks, now - SWITCHED.get());
    }
    SWITCHED.set(now);
    gate::idle()
}

/// Idling ended; who runs is chosen at the end of this visit.
pub fn woke() {
    gate::wake();
    let now = clock::ticks();
    add(&COUNTERS.idle_ns, clock::to_ns(now - SWITCHED.get()));
    SWITCHED.set(now);
}

/// A process dies: it is nobody's turn any more.
pub fn forget(process: &'static Process) {
    block(process, rts::FREE);
    discard(process);
    if is_current(process) {
        CURRENT_PROCESS.set(process::nobody());
    }
}
