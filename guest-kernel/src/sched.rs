//! Preemptive priority scheduling: eight queues, a turn of [`clock::QUANTUM`] within one.

use crate::arch::gate::{self, CURRENT, Gate};
use crate::arch::{fpu, machine};
use crate::clock;
use crate::global::Global;
use crate::lab;
use crate::process::{self, NIL, PRIORITIES, Process};
use crate::trap;
use abi::kernel::{Counters, rts};
use abi::trace::Kind;

struct Queues {
    heads: [u16; PRIORITIES],
    tails: [u16; PRIORITIES],
    occupied: u8,
}

static mut QUEUES: Queues = Queues {
    heads: [NIL; PRIORITIES],
    tails: [NIL; PRIORITIES],
    occupied: 0,
};
static GATE: Global<Gate> = Global::new(Gate::Direct);
/// A ready process in front of the queues: whom the current visit woke first. Most visits
/// wake one process and block the caller, and then it runs without having been queued.
static WOKEN: Global<*mut Process> = Global::new(core::ptr::null_mut());
/// Whose FPU and bases the processor holds.
static LOADED: Global<*mut Process> = Global::new(core::ptr::null_mut());
static SWITCHED: Global<u64> = Global::new(0);
static mut COUNTERS: Counters = Counters {
    visits: 0,
    messages: 0,
    copies: 0,
    copied_bytes: 0,
    soft_faults: 0,
    memory_requests: 0,
    page_faults: 0,
    interrupts: 0,
    switches: 0,
    idle_ns: 0,
};
static ANNOUNCE: Global<bool> = Global::new(true);

/// The counters, for whoever counts.
#[inline(always)]
pub fn counters() -> &'static mut Counters {
    // SAFETY: the kernel is one thread of control.
    unsafe { &mut *(&raw mut COUNTERS) }
}

/// Tells the scheduler its gate.
pub fn init(gate: Gate) {
    GATE.set(gate);
    SWITCHED.set(clock::ticks());
}

/// The gate.
pub fn gate() -> Gate {
    GATE.get()
}

/// The process that entered the kernel.
#[inline(always)]
pub fn current() -> &'static mut Process {
    // SAFETY: CURRENT is set before the first entry and always points into the table.
    unsafe { &mut *CURRENT.get() }
}

/// The process behind a pointer of this module, if there is one.
#[inline(always)]
fn process_at(pointer: *mut Process) -> Option<&'static mut Process> {
    // SAFETY: CURRENT, WOKEN and LOADED are null or point into the process table, which is
    // static; see `process::slot` on borrows.
    unsafe { pointer.as_mut() }
}

#[inline(always)]
fn queues() -> &'static mut Queues {
    // SAFETY: the kernel is one thread of control, and no function of this module keeps the
    // borrow across a call of another.
    unsafe { &mut *(&raw mut QUEUES) }
}

/// A process became ready.
#[inline(always)]
fn wake(process: &mut Process) {
    if WOKEN.get().is_null() {
        WOKEN.set(process);
    } else {
        push(process, false);
    }
}

#[inline(never)]
fn push(process: &mut Process, front: bool) {
    let (index, priority) = (process.index() as u16, process.priority as usize & 7);
    let queues = queues();
    if queues.occupied & 1 << priority == 0 {
        process.ready_next = NIL;
        (queues.heads[priority], queues.tails[priority]) = (index, index);
        queues.occupied |= 1 << priority;
    } else if front {
        process.ready_next = queues.heads[priority];
        queues.heads[priority] = index;
    } else {
        process.ready_next = NIL;
        process::slot(queues.tails[priority] as usize).ready_next = index;
        queues.tails[priority] = index;
    }
}

#[inline(never)]
fn unlink(process: &mut Process) {
    if core::ptr::eq(process, WOKEN.get()) {
        return WOKEN.set(core::ptr::null_mut());
    }
    let (index, priority) = (process.index() as u16, process.priority as usize & 7);
    let queues = queues();
    let (mut previous, mut at) = (NIL, queues.heads[priority]);
    while at != index {
        if at == NIL {
            return;
        }
        (previous, at) = (at, process::slot(at as usize).ready_next);
    }
    let next = process.ready_next;
    if previous == NIL {
        queues.heads[priority] = next;
    } else {
        process::slot(previous as usize).ready_next = next;
    }
    if next == NIL {
        queues.tails[priority] = previous;
    }
    if queues.heads[priority] == NIL {
        queues.occupied &= !(1 << priority);
    }
}

/// Adds reasons not to run.
#[inline(always)]
pub fn block(process: &mut Process, flags: u32) {
    if process.flags == 0 && !is_current(process) {
        unlink(process);
    }
    process.flags |= flags;
}

/// Removes reasons not to run.
#[inline(always)]
pub fn unblock(process: &mut Process, flags: u32) {
    if process.flags == 0 {
        return;
    }
    process.flags &= !flags;
    if process.flags == 0 && !is_current(process) {
        wake(process);
    }
}

#[inline(always)]
fn is_current(process: &Process) -> bool {
    core::ptr::eq(process, CURRENT.get())
}

/// Changes the priority.
pub fn set_priority(process: &mut Process, priority: u8) {
    let ready = process.flags == 0 && !is_current(process);
    if ready {
        unlink(process);
    }
    process.priority = priority;
    if ready {
        push(process, false);
    }
}

/// Chooses who runs next and makes it current; idles when nobody can. Called once at the end
/// of every kernel visit. With `LAB` time may be virtual and the choice a decision; without,
/// nothing is spent on that.
#[inline(always)]
pub fn choose<const LAB: bool>() {
    let current = process_at(CURRENT.get()).filter(|current| current.flags == 0);
    if LAB && lab::deciding() {
        return choose_freely(current);
    }
    if let Some(woken) = process_at(WOKEN.get()) {
        WOKEN.set(core::ptr::null_mut());
        let best = queues().occupied.trailing_zeros() as u8;
        // A process that the queues or the current one hold back waits its turn there.
        if woken.priority >= best
            || current
                .as_ref()
                .is_some_and(|current| current.priority <= woken.priority)
        {
            push(woken, false);
        } else {
            if let Some(current) = current {
                push(current, true);
            }
            return switch::<LAB>(woken);
        }
    }
    match current {
        Some(current) => go_on::<LAB>(current),
        None => next::<LAB>(),
    }
}

/// [`clock::ticks`], in half the instructions where time is real.
#[inline(always)]
fn ticks<const LAB: bool>() -> u64 {
    if LAB { clock::ticks() } else { clock::tsc() }
}

/// [`choose`] where who runs next is a decision.
#[inline(never)]
fn choose_freely(current: Option<&'static mut Process>) {
    take_woken();
    if let Some(current) = current {
        push(current, true);
    }
    match lab::choose_process() {
        Some(chosen) => {
            unlink(chosen);
            switch::<true>(chosen);
        }
        None => next::<true>(),
    }
}

/// Puts the process that was woken first into the queues.
fn take_woken() {
    if let Some(woken) = process_at(WOKEN.get()) {
        WOKEN.set(core::ptr::null_mut());
        push(woken, false);
    }
}

/// The current process could go on: does it?
#[inline(always)]
fn go_on<const LAB: bool>(current: &mut Process) {
    let best = queues().occupied.trailing_zeros() as usize;
    if (current.priority as usize) < best {
        return;
    }
    let same = current.priority as usize == best;
    if same && ticks::<LAB>() < current.slice_end {
        return clock::arm(clock::time_of(current.slice_end));
    }
    push(current, !same);
    next::<LAB>();
}

/// Makes the first process of the highest priority current, or idles.
#[inline(never)]
fn next<const LAB: bool>() {
    if queues().occupied == 0 {
        CURRENT.set(core::ptr::null_mut());
        if !LAB || !clock::is_virtual() {
            wait();
        }
        skip();
    }
    let queues = queues();
    let priority = queues.occupied.trailing_zeros() as usize & 7;
    let next = process::slot(queues.heads[priority] as usize);
    queues.heads[priority] = next.ready_next;
    if next.ready_next == NIL {
        queues.occupied &= !(1 << priority);
    }
    let contended = next.ready_next != NIL;
    switch::<LAB>(next);
    if contended {
        clock::arm(clock::time_of(next.slice_end));
    }
}

#[inline(always)]
fn switch<const LAB: bool>(next: &mut Process) {
    let now = ticks::<LAB>();
    let elapsed = now - SWITCHED.get();
    SWITCHED.set(now);
    next.slice_end = now + clock::quantum_ticks();
    if core::ptr::eq(LOADED.get(), next) {
        next.ticks += elapsed;
    } else {
        counters().switches += 1;
        if let Some(loaded) = process_at(LOADED.get()) {
            loaded.ticks += elapsed;
            store(loaded);
        }
        load(next);
    }
    if !core::ptr::eq(CURRENT.get(), next) {
        if LAB {
            lab::switched(process_at(CURRENT.get()).as_deref(), next);
        }
        gate::set_task_cr3(GATE.get(), next.cr3);
        CURRENT.set(next);
    }
}

#[inline(always)]
fn load(next: &mut Process) {
    fpu::restore(next.fpu);
    if next.linux() {
        fpu::restore_bases(next);
        if ANNOUNCE.get() {
            ANNOUNCE.set(false);
            let counters = counters();
            machine::program_started(counters.visits, counters.messages);
        }
    }
    LOADED.set(next);
}

#[inline(always)]
fn store(process: &mut Process) {
    fpu::save(process.fpu);
    if process.linux() {
        fpu::save_bases(process);
    }
}

/// Writes `process`'s FPU and bases back to its table entry if the processor holds them, so
/// that they can be read or replaced; they are loaded again before it runs.
pub fn release_of(process: &mut Process) {
    if core::ptr::eq(LOADED.get(), process) {
        store(process);
        LOADED.set(core::ptr::null_mut());
    }
}

/// The process's state in the processor is worthless (it died or was replaced).
pub fn discard(process: &Process) {
    if core::ptr::eq(LOADED.get(), process) {
        LOADED.set(core::ptr::null_mut());
    }
}

/// The running process changed address spaces: reload CR3 before it goes on.
pub fn reload_space() {
    if let Some(current) = process_at(CURRENT.get()) {
        gate::set_task_cr3(GATE.get(), current.cr3);
    }
}

/// Nobody can run, and time is virtual: it goes on to the next timer, until somebody can.
fn skip() {
    while queues().occupied == 0 {
        let Some(ns) = clock::skip() else {
            lab::stuck();
            continue;
        };
        counters().idle_ns += ns;
        lab::note(Kind::Idle, || [0, 0, ns, 0, 0, 0]);
        trap::timers();
        take_woken();
    }
}

fn wait() -> ! {
    let now = clock::ticks();
    if let Some(loaded) = process_at(LOADED.get()) {
        loaded.ticks += now - SWITCHED.get();
    }
    SWITCHED.set(now);
    gate::idle(gate())
}

/// Idling ended; who runs is chosen at the end of this visit.
pub fn woke() {
    gate::wake(gate());
    let now = clock::ticks();
    counters().idle_ns += clock::to_ns(now - SWITCHED.get());
    SWITCHED.set(now);
}

/// A process dies: it is nobody's turn any more.
pub fn forget(process: &mut Process) {
    block(process, rts::FREE);
    discard(process);
    if is_current(process) {
        CURRENT.set(core::ptr::null_mut());
    }
}
