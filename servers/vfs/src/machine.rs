//! What VFS needs of the world around it: messages, grants, copies, clocks. The native
//! machine is the kernel; the tests have one of their own.

use abi::grant::{Access, GrantTo, ToRead, ToWrite};
use abi::message::request::{Called, Post};
use abi::trace::{Serving, Stage};
use abi::{Endpoint, Errno, Message, Request, message};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt::Arguments;
use core::marker::PhantomData;
pub use rt::grants::Lent;

/// What the auxiliary vector says of the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Processor {
    /// AT_HWCAP.
    pub hwcap: u64,
    /// AT_MINSIGSTKSZ.
    pub min_signal_stack: u64,
}

/// Slots whose processor times a [`Sample`] has: those of the services.
pub const SERVICE_SLOTS: usize = 16;

/// Who used the processor how long since boot, ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// The time before it was taken.
    pub before: u64,
    /// The time after it was taken.
    pub after: u64,
    /// By process slot. What the caller used since it was last chosen to run is missing.
    pub used: [u64; SERVICE_SLOTS],
    /// Time without anything to do.
    pub idle: u64,
}

/// The world.
pub trait Machine {
    /// Posts; never fails for lack of room. A dead peer's messages are dropped.
    fn post(&self, to: Endpoint, message: Message);
    /// Answers a call or a Linux call; a peer that died is ignored.
    fn reply(&self, to: Endpoint, message: Message);
    /// Calls VM, the only server VFS may wait for.
    fn call_vm(&self, message: Message) -> Result<Message, Errno>;
    /// Makes calls of VM in order, at one go ([`abi::proto::vm::Batch`]): how many were
    /// done, and what the next said.
    fn call_vm_all(&self, messages: &[Message]) -> (usize, Result<(), Errno>);
    /// A grant to read data of VFS's own.
    fn lend<'a>(&self, to: Endpoint, data: &'a [u8]) -> Result<Lent<'a>, Errno>;
    /// A grant on a buffer of VFS's own.
    fn lend_cells<'a>(
        &self,
        to: Endpoint,
        buffer: &'a [Cell<u8>],
        access: Access,
    ) -> Result<Lent<'a>, Errno>;
    /// A grant with TRY on memory of the process `subject`.
    fn grant_user(
        &self,
        to: Endpoint,
        subject: Endpoint,
        address: u64,
        len: u64,
        access: Access,
    ) -> Result<Lent<'static>, Errno>;
    /// Revokes; whether a copy through it met an absent page.
    fn revoke(&self, grant: i32) -> bool;
    /// Grants in use.
    fn grants(&self) -> usize;
    /// Copies from a process; `EFAULT` on an absent page.
    fn try_read(&self, from: Endpoint, address: u64, buffer: &mut [u8]) -> Result<(), Errno>;
    /// Copies to a process; `EFAULT` on an absent or protected page.
    fn try_write(&self, to: Endpoint, address: u64, data: &[u8]) -> Result<(), Errno>;
    /// Copies from a server's grant.
    fn read_grant(&self, from: Endpoint, grant: ToRead, buffer: &mut [u8]) -> Result<(), Errno>;
    /// Copies to a server's grant.
    fn write_grant(&self, to: Endpoint, grant: ToWrite, data: &[u8]) -> Result<(), Errno>;
    /// Ns since boot.
    fn now(&self) -> u64;
    /// Ns since 1970.
    fn wall_clock(&self) -> u64;
    /// Arms the one timer (0 disarms).
    fn set_timer(&self, deadline: u64);
    /// Bytes of memory that programs can have.
    fn memory(&self) -> u64 {
        256 << 20
    }
    /// The run specification.
    fn run_specification(&self) -> Result<Vec<u8>, Errno>;
    /// What programs are told of the processor.
    fn processor(&self) -> Processor;
    /// Whether a deliberate defect is switched on ([`abi::sabotage`]).
    fn sabotaged(&self, _defect: u64) -> bool {
        false
    }
    /// What this server says it does, if a laboratory looks.
    fn serving(&self) -> Option<&Cell<Serving>> {
        None
    }
    /// A step of an exec of `target` is about to be made or queued.
    fn stage(&self, _target: Endpoint, _stage: Stage, _address: u64, _len: u64) {}
    /// Who used the processor how long.
    fn sample(&self) -> Sample;
    /// The name of the process in a slot; empty when there is none.
    fn process_name(&self, slot: usize) -> [u8; 16];
    /// A line for the host.
    fn log(&self, text: Arguments<'_>);
}

/// [`Machine::post`], typed.
pub fn post<R: Request<How = Post>>(machine: &dyn Machine, to: Endpoint, request: R) {
    machine.post(to, request.encode());
}

/// [`Machine::call_vm`], typed.
pub fn call_vm<R: Request<How: Called>>(
    machine: &dyn Machine,
    request: R,
) -> Result<R::Reply, Errno> {
    message::reply_result(&machine.call_vm(request.encode())?)
}

/// A grant, revoked when it goes. Memory of VFS's own behind it is borrowed meanwhile.
pub struct Grant<'a, D> {
    machine: Rc<dyn Machine>,
    /// Until it is revoked.
    lent: Option<Lent<'a>>,
    direction: PhantomData<D>,
}

impl<'a, D> Grant<'a, D> {
    /// Takes charge of a grant.
    pub fn new(machine: &Rc<dyn Machine>, lent: Lent<'a>) -> Grant<'a, D> {
        Grant {
            machine: machine.clone(),
            lent: Some(lent),
            direction: PhantomData,
        }
    }

    /// The id to send.
    pub fn to(&self) -> GrantTo<D> {
        self.lent
            .as_ref()
            .map_or(GrantTo::NONE, |lent| GrantTo::new(lent.id))
    }

    /// Revokes; whether a copy through it met an absent page (the soft-fault mark).
    pub fn revoke(mut self) -> bool {
        let lent = self.lent.take();
        lent.is_some_and(|lent| self.machine.revoke(lent.id))
    }
}

impl<D> Drop for Grant<'_, D> {
    fn drop(&mut self) {
        if let Some(lent) = self.lent.take() {
            self.machine.revoke(lent.id);
        }
    }
}
