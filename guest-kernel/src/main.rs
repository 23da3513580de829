//! The microkernel: address-space switch, IPC, copies and grants, the process table and its
//! privileges, interrupts to messages, clock and scheduling. No policy, no heap, no file, no
//! ELF; it knows no Linux call.
//!
//! One thread of control: the kernel is entered by a trap, runs with interrupts off to the
//! end of [`sched::choose`], and leaves to whoever is current. Nothing in it waits.
//!
//! The modules stand on floors, the highest first: each uses only those further down (`tests/house.rs`).
#![cfg_attr(guest_image, no_std, no_main)]

// From the loader to the first process.
mod boot;
// What brings a processor in, and how it leaves.
mod trap;
// What services ask of the kernel.
mod kcall;
// What they do with processes.
mod lifecycle;
// What programs do becomes messages.
mod linux;
// Faults do, too.
mod faults;
mod inspect;
// Messages; what copies wait for.
mod ipc;
mod memreq;
// Copies between processes; what interrupts and time lead to.
mod lines;
mod timers;
mod transfer;
// Delivery.
mod notice;
// Who runs; which memory a grant stands for.
mod grant;
mod plan;
mod sched;
// What was told at boot, and what the laboratory is told.
mod direct_map;
mod facts;
mod lab;
// Processes, bytes, time.
mod clock;
mod copy;
mod log;
mod process;
// What these stand on.
mod counters;
mod memory;
mod modify;
// The processor and the machine around it.
mod arch;
// One thread of control.
mod global;

#[cfg(not(guest_image))]
fn main() {
    // Built for the host (clippy, rustdoc, `cargo build --workspace`), the kernel is a program that nobody runs.
}

#[cfg(guest_image)]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    fatal!("{info}")
}
