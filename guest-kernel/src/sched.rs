//! Preemptive priority scheduling: eight queues, a turn of [`clock::QUANTUM`] within one.

use crate::arch::gate::{self, CURRENT, Gate};
use crate::arch::{fpu, machine};
use crate::clock;
use crate::process::{self, NIL, PRIORITIES, Process};
use abi::kernel::{Counters, rts};

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
static mut GATE: Gate = Gate::Direct;
/// A ready process in front of the queues: whom the current visit woke first. Most visits
/// wake one process and block the caller, and then it runs without having been queued.
static mut WOKEN: *mut Process = core::ptr::null_mut();
/// Whose FPU and bases the processor holds.
static mut LOADED: *mut Process = core::ptr::null_mut();
static mut SWITCHED: u64 = 0;
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
static mut ANNOUNCE: bool = true;

/// The counters, for whoever counts.
#[inline(always)]
pub fn counters() -> &'static mut Counters {
    // SAFETY: the kernel is one thread of control.
    unsafe { &mut *(&raw mut COUNTERS) }
}

/// Tells the scheduler its gate.
pub fn init(gate: Gate) {
    // SAFETY: boot.
    unsafe {
        GATE = gate;
        SWITCHED = clock::ticks();
    }
}

/// The gate.
pub fn gate() -> Gate {
    // SAFETY: written at boot only.
    unsafe { GATE }
}

/// The process that entered the kernel.
#[inline(always)]
pub fn current() -> &'static mut Process {
    // SAFETY: CURRENT is set before the first entry and always points into the table.
    unsafe { &mut *CURRENT }
}

/// A process became ready.
#[inline(always)]
fn wake(process: &mut Process) {
    // SAFETY: single thread of control.
    unsafe {
        if WOKEN.is_null() {
            WOKEN = process;
        } else {
            push(process, false);
        }
    }
}

#[inline(never)]
fn push(process: &mut Process, front: bool) {
    let (index, priority) = (process.index() as u16, process.priority as usize & 7);
    // SAFETY: single thread of control.
    let queues = unsafe { &mut *(&raw mut QUEUES) };
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
    // SAFETY: single thread of control.
    unsafe {
        if core::ptr::eq(process, WOKEN) {
            WOKEN = core::ptr::null_mut();
            return;
        }
    }
    let (index, priority) = (process.index() as u16, process.priority as usize & 7);
    // SAFETY: single thread of control.
    let queues = unsafe { &mut *(&raw mut QUEUES) };
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
    // SAFETY: only compares.
    unsafe { core::ptr::eq(process, CURRENT) }
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
/// of every kernel visit.
#[inline(always)]
pub fn choose() {
    // SAFETY: single thread of control; CURRENT is null only when nobody ran.
    unsafe {
        let runs = !CURRENT.is_null() && (*CURRENT).flags == 0;
        let best = (*(&raw const QUEUES)).occupied.trailing_zeros() as usize;
        if !WOKEN.is_null() {
            let woken = &mut *WOKEN;
            WOKEN = core::ptr::null_mut();
            // A process that the queues hold back waits its turn there.
            if (woken.priority as usize) < best && !(runs && (*CURRENT).priority <= woken.priority)
            {
                if runs {
                    push(&mut *CURRENT, true);
                }
                return switch(woken);
            }
            push(woken, false);
        }
        if runs {
            return go_on(&mut *CURRENT);
        }
        next();
    }
}

/// The current process could go on: does it?
#[inline(always)]
fn go_on(current: &mut Process) {
    // SAFETY: single thread of control.
    let best = unsafe { (*(&raw const QUEUES)).occupied }.trailing_zeros() as usize;
    if (current.priority as usize) < best {
        return;
    }
    let same = current.priority as usize == best;
    if same && clock::ticks() < current.slice_end {
        return clock::arm(clock::time_of(current.slice_end));
    }
    push(current, !same);
    next();
}

/// Makes the first process of the highest priority current, or idles.
#[inline(never)]
fn next() {
    // SAFETY: single thread of control; a queue that is occupied has a head.
    unsafe {
        let queues = &mut *(&raw mut QUEUES);
        if queues.occupied == 0 {
            CURRENT = core::ptr::null_mut();
            wait();
        }
        let priority = queues.occupied.trailing_zeros() as usize;
        let next = process::slot(queues.heads[priority & 7] as usize);
        queues.heads[priority & 7] = next.ready_next;
        if next.ready_next == NIL {
            queues.occupied &= !(1 << priority);
        }
        switch(next);
        if queues.occupied & 1 << priority != 0 {
            clock::arm(clock::time_of(next.slice_end));
        }
    }
}

#[inline(always)]
fn switch(next: &mut Process) {
    let now = clock::ticks();
    // SAFETY: single thread of control. LOADED, when not null, points into the table.
    unsafe {
        let elapsed = now - SWITCHED;
        SWITCHED = now;
        next.slice_end = now + clock::quantum_ticks();
        if !core::ptr::eq(LOADED, next) {
            counters().switches += 1;
            if !LOADED.is_null() {
                (*LOADED).ticks += elapsed;
                store(&mut *LOADED);
            }
            load(next);
        } else {
            next.ticks += elapsed;
        }
        if !core::ptr::eq(CURRENT, next) {
            gate::set_task_cr3(GATE, next.cr3);
            CURRENT = next;
        }
    }
}

#[inline(always)]
fn load(next: &mut Process) {
    fpu::restore(next.fpu);
    if next.linux {
        fpu::restore_bases(next);
        // SAFETY: single thread of control.
        unsafe {
            if ANNOUNCE {
                ANNOUNCE = false;
                machine::program_started();
            }
        }
    }
    // SAFETY: as above.
    unsafe { LOADED = next };
}

#[inline(always)]
fn store(process: &mut Process) {
    fpu::save(process.fpu);
    if process.linux {
        fpu::save_bases(process);
    }
}

/// Writes `process`'s FPU and bases back to its table entry if the processor holds them, so
/// that they can be read or replaced; they are loaded again before it runs.
pub fn release_of(process: &mut Process) {
    // SAFETY: single thread of control.
    unsafe {
        if core::ptr::eq(LOADED, process) {
            store(process);
            LOADED = core::ptr::null_mut();
        }
    }
}

/// The process's state in the processor is worthless (it died or was replaced).
pub fn discard(process: &Process) {
    // SAFETY: single thread of control.
    unsafe {
        if core::ptr::eq(LOADED, process) {
            LOADED = core::ptr::null_mut();
        }
    }
}

/// The running process changed address spaces: reload CR3 before it goes on.
pub fn reload_space() {
    // SAFETY: see `current`.
    unsafe {
        if !CURRENT.is_null() {
            gate::set_task_cr3(GATE, (*CURRENT).cr3);
        }
    }
}

fn wait() -> ! {
    let now = clock::ticks();
    // SAFETY: single thread of control.
    unsafe {
        if !LOADED.is_null() {
            (*LOADED).ticks += now - SWITCHED;
        }
        SWITCHED = now;
    }
    gate::idle(gate())
}

/// Idling ended; who runs is chosen at the end of this visit.
pub fn woke() {
    gate::wake(gate());
    let now = clock::ticks();
    // SAFETY: single thread of control.
    unsafe {
        counters().idle_ns += clock::to_ns(now - SWITCHED);
        SWITCHED = now;
    }
}

/// A process dies: it is nobody's turn any more.
pub fn forget(process: &mut Process) {
    block(process, rts::FREE);
    discard(process);
    if is_current(process) {
        // SAFETY: single thread of control; `choose` follows.
        unsafe { CURRENT = core::ptr::null_mut() };
    }
}
