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
/// Whose FPU and bases the processor holds.
static mut LOADED: u16 = NIL;
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

fn unlink(process: &mut Process) {
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
        push(process, false);
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
    // SAFETY: single thread of control; CURRENT is null only before the first choice.
    unsafe {
        let queues = &mut *(&raw mut QUEUES);
        let best = queues.occupied.trailing_zeros() as usize;
        if !CURRENT.is_null() {
            let current = &mut *CURRENT;
            if current.flags == 0 {
                if (current.priority as usize) < best {
                    return;
                }
                let turn_over =
                    current.priority as usize == best && clock::ticks() >= current.slice_end;
                if current.priority as usize == best && !turn_over {
                    clock::arm(clock::time_of(current.slice_end));
                    return;
                }
                push(current, !turn_over);
            }
        }
        if queues.occupied == 0 {
            CURRENT = core::ptr::null_mut();
            wait();
        }
        take(queues.occupied.trailing_zeros() as usize);
    }
}

/// Makes the first process of `priority` current.
#[inline(always)]
fn take(priority: usize) {
    // SAFETY: single thread of control; the queue is not empty.
    unsafe {
        let queues = &mut *(&raw mut QUEUES);
        let index = queues.heads[priority];
        let next = process::slot(index as usize);
        queues.heads[priority] = next.ready_next;
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
    // SAFETY: single thread of control. LOADED names a slot whose area exists.
    unsafe {
        if LOADED != NIL {
            process::slot(LOADED as usize).ticks += now - SWITCHED;
        }
        SWITCHED = now;
        next.slice_end = now + clock::quantum_ticks();
        let index = next.index() as u16;
        if LOADED != index {
            counters().switches += 1;
            release();
            fpu::restore(index as usize);
            if next.linux {
                fpu::restore_bases(next);
                if ANNOUNCE {
                    ANNOUNCE = false;
                    machine::program_started();
                }
            }
            LOADED = index;
        }
        gate::set_task_cr3(GATE, next.cr3);
        CURRENT = next;
    }
}

/// Writes the loaded process's FPU and bases back to its table entry, so that they can be
/// read or replaced; they are loaded again before it runs.
#[inline(always)]
pub fn release() {
    // SAFETY: as in `switch`.
    unsafe {
        if LOADED != NIL {
            let process = process::slot(LOADED as usize);
            fpu::save(LOADED as usize);
            if process.linux {
                fpu::save_bases(process);
            }
            LOADED = NIL;
        }
    }
}

/// Makes `process`'s saved state the true one.
pub fn release_of(process: &Process) {
    // SAFETY: only compares.
    if unsafe { LOADED } == process.index() as u16 {
        release();
    }
}

/// The slot's state in the processor is worthless (the process died or was replaced).
pub fn discard(slot: usize) {
    // SAFETY: single thread of control.
    unsafe {
        if LOADED == slot as u16 {
            LOADED = NIL;
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
        if LOADED != NIL {
            process::slot(LOADED as usize).ticks += now - SWITCHED;
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
    discard(process.index());
    if is_current(process) {
        // SAFETY: single thread of control; `choose` follows.
        unsafe { CURRENT = core::ptr::null_mut() };
    }
}
