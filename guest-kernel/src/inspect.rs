//! Tells the VMM where the process table and the message queues lie, so that it can look from
//! outside: it finds deadlocks and draws who waits for whom. Costs nothing after the boot.

use crate::arch::layout::KERNEL_BASE;
use crate::arch::machine;
use crate::counters::COUNTERS;
use crate::global::Global;
use crate::ipc::{self, Post};
use crate::log::say;
use crate::process::{self, MAX_PROCESSES, Parked, Process};
use crate::sched;
use abi::Endpoint;
use abi::lab::{INSPECTION_LINE, INSPECTION_MAGIC, Inspection};
use core::mem::{MaybeUninit, offset_of};

static INSPECTION: Global<MaybeUninit<Inspection>> = Global::new(MaybeUninit::uninit());

/// The physical address of something in the kernel's image.
fn physical<T>(pointer: *const T) -> u64 {
    pointer as u64 - KERNEL_BASE
}

/// Where an `Option<Parked>` keeps its value.
fn parked_offset() -> u64 {
    let some = Some(Parked {
        target: Endpoint::NONE,
        address: 0,
        len: 0,
        write: false,
        soft: false,
        fetched: false,
        mark: None,
        failure: None,
    });
    match &some {
        Some(value) => (&raw const *value) as u64 - (&raw const some) as u64,
        None => 0,
    }
}

/// Announces the layout to the VMM, or to whoever reads the serial port. Boot.
pub fn publish() {
    let (links, posts) = ipc::tables();
    INSPECTION.set(MaybeUninit::new(Inspection {
        magic: INSPECTION_MAGIC,
        table: physical(process::slot(0)),
        stride: size_of::<Process>() as u64,
        slots: MAX_PROCESSES as u64,
        current: physical(sched::current_address()),
        nobody: &raw const *process::nobody() as u64,
        counters: physical(&raw const *COUNTERS),
        links: physical(links),
        posts: physical(posts),
        post_stride: size_of::<Post>() as u64,
        post_count: ipc::POSTS as u64,
        post_message: offset_of!(Post, message) as u64,
        regs: offset_of!(Process, regs) as u64,
        flags: offset_of!(Process, flags) as u64,
        endpoint: offset_of!(Process, endpoint) as u64,
        peer: offset_of!(Process, peer) as u64,
        filter: offset_of!(Process, filter) as u64,
        class: offset_of!(Process, class) as u64,
        fault: offset_of!(Process, fault) as u64,
        queue: offset_of!(Process, queue_head) as u64,
        ticks: offset_of!(Process, ticks) as u64,
        name: offset_of!(Process, name) as u64,
        cr3: offset_of!(Process, cr3) as u64,
        parked: offset_of!(Process, parked) as u64 + parked_offset(),
    }));
    let at = physical(INSPECTION.as_ptr());
    if !machine::announce_inspection(at) {
        say(format_args!("{INSPECTION_LINE} {at:x}"));
    }
}
