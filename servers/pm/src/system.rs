//! What PM needs from the rest of the system.

use abi::grant::{ToRead, ToWrite};
use abi::kernel::{ProcessInfo, Registers, StopState};
use abi::message::request::{Ask, Asker, Called, Post};
use abi::{Endpoint, Errno, Fields, Message, Request};
use alloc::vec::Vec;

/// Kernel calls, messages and copies as PM uses them; [`crate::machine::Machine`] is the
/// real one.
pub trait System {
    /// Calls a server and waits.
    fn call<R: Request<How: Called>>(
        &mut self,
        to: Endpoint,
        request: R,
    ) -> Result<R::Reply, Errno>;
    /// Posts; never fails, never waits.
    fn post<R: Request<How = Post>>(&mut self, to: Endpoint, request: R);
    /// Asks, likewise.
    fn ask<R: Request<How = Ask>>(&mut self, to: Endpoint, txn: u64, request: R);
    /// Answers what was asked, likewise.
    fn answer<T: Fields>(&mut self, asker: Asker<T>, result: Result<T, Errno>);
    /// Answers a process that waits for PM. A process that no longer waits is no error.
    fn reply(&mut self, to: Endpoint, message: Message);
    /// Tells VFS the supplementary groups of the process of `who`.
    fn set_groups(&mut self, who: Endpoint, groups: &[u32]) -> Result<(), Errno>;

    /// Ns since boot.
    fn now(&mut self) -> u64;
    /// Arms PM's one timer (0 disarms).
    fn set_timer(&mut self, deadline: u64);

    /// A new, stopped Linux process.
    fn create(&mut self, name: &str) -> Result<Endpoint, Errno>;
    /// A stopped copy of `parent`, which waits for PM.
    fn fork(&mut self, parent: Endpoint) -> Result<Endpoint, Errno>;
    /// Destroys a process.
    fn destroy(&mut self, who: Endpoint);
    /// Starts a process with fresh registers.
    fn start(&mut self, who: Endpoint, pc: u64, sp: u64) -> Result<(), Errno>;
    /// Stops a process; the server is the one its Linux call is with.
    fn stop(&mut self, who: Endpoint) -> Result<(StopState, Endpoint), Errno>;
    /// Undoes [`System::stop`] and the stop of a fault; `how` is of [`abi::kernel::resume`].
    fn resume(&mut self, who: Endpoint, how: u64);
    /// The next process that was busy when it was stopped and is not any more, or that stopped
    /// at a Linux call.
    fn next_stopped(&mut self) -> Option<Endpoint>;
    /// Integer registers.
    fn registers(&mut self, who: Endpoint) -> Result<Registers, Errno>;
    /// Replaces them.
    fn set_registers(&mut self, who: Endpoint, registers: &Registers) -> Result<(), Errno>;
    /// The XSAVE area in standard format.
    fn fpu(&mut self, who: Endpoint) -> Result<Vec<u8>, Errno>;
    /// Replaces it; an empty slice resets the FPU.
    fn set_fpu(&mut self, who: Endpoint, area: &[u8]) -> Result<(), Errno>;
    /// Whether a deliberate defect is switched on ([`abi::sabotage`]).
    fn sabotaged(&self, _defect: u64) -> bool {
        false
    }
    /// The state components that the area can hold (XCR0).
    fn xfeatures(&mut self) -> u64;
    /// The kernel's view of a slot.
    fn info(&mut self, slot: usize) -> Option<ProcessInfo>;
    /// What the kernel shows as the process's name.
    fn set_name(&mut self, who: Endpoint, name: [u8; 16]);

    /// Copies from a process. Without `wait` an absent page is `EFAULT`; with it VM repairs
    /// the page while PM waits.
    fn read(
        &mut self,
        who: Endpoint,
        address: u64,
        buffer: &mut [u8],
        wait: bool,
    ) -> Result<(), Errno>;
    /// Copies to a process; see [`System::read`].
    fn write(
        &mut self,
        who: Endpoint,
        address: u64,
        buffer: &[u8],
        wait: bool,
    ) -> Result<(), Errno>;
    /// Copies from a grant of another server.
    fn fetch(&mut self, granter: Endpoint, grant: ToRead, buffer: &mut [u8]) -> Result<(), Errno>;
    /// Copies to a grant of another server.
    fn store(&mut self, granter: Endpoint, grant: ToWrite, buffer: &[u8]) -> Result<(), Errno>;

    /// A line for the host's log.
    fn log(&mut self, text: core::fmt::Arguments<'_>);
    /// Ends the machine.
    fn power_off(&mut self, status: u64);
}
