//! A server that VFS asks by posting, and that answers by posting.

use crate::machine::{Grant, Machine};
use abi::grant::{Access, Reading, Writing};
use abi::message::answer_result;
use abi::message::request::Ask;
use abi::{Endpoint, Errno, Message, Request};
use alloc::rc::Rc;
use core::cell::Cell;
use rt::task::Answers;

/// What was answered, or that its peer is dead.
type Said = Result<Message, Errno>;
/// Linux's own errno for a call that is to be made again.
const ERESTART: Errno = Errno(85);

/// The questions VFS has out, by transaction and peer.
pub type Questions = Answers<Endpoint, Said>;

/// A file system, driver or VM.
#[derive(Clone)]
pub struct Peer {
    /// Who it is.
    pub endpoint: Endpoint,
    machine: Rc<dyn Machine>,
    questions: Questions,
    /// How often it was asked to repair memory, by all who have this peer.
    pub repairs: Rc<Cell<u64>>,
}

impl Peer {
    /// The peer at `endpoint`.
    pub fn new(endpoint: Endpoint, machine: &Rc<dyn Machine>, questions: &Questions) -> Peer {
        Peer {
            endpoint,
            machine: machine.clone(),
            questions: questions.clone(),
            repairs: Rc::default(),
        }
    }

    /// The machine, for grants.
    pub fn machine(&self) -> &Rc<dyn Machine> {
        &self.machine
    }

    /// Asks and waits for the answer. Errors that only VFS itself may give a program, or that
    /// would have the call made again, become `EIO`.
    pub async fn ask<R: Request<How = Ask>>(&self, request: R) -> Result<R::Reply, Errno> {
        let (_, answer) = self.start(request);
        said::<R>(answer.await).map_err(|errno| match errno.0 {
            1..=133 if errno != ERESTART => errno,
            _ => Errno::EIO,
        })
    }

    /// `EIO` when it has died: what VFS remembers of it is of no use without it.
    pub fn check_alive(&self) -> Result<(), Errno> {
        if self.questions.is_closed(self.endpoint) {
            Err(Errno::EIO)
        } else {
            Ok(())
        }
    }

    /// Asks: the transaction number and the future of what is [`said`], for who may want to cancel.
    pub fn start<R: Request<How = Ask>>(
        &self,
        request: R,
    ) -> (u64, rt::task::Answer<Endpoint, Said>) {
        let (txn, answer) = self.questions.ask(self.endpoint);
        self.machine.post(self.endpoint, request.ask(txn));
        (txn, answer)
    }

    /// Tells something that is not answered, or whose answer does not matter.
    pub fn tell<R: Request>(&self, request: R) {
        self.machine.post(self.endpoint, request.encode());
    }

    /// Lets the peer read `bytes` of VFS.
    pub fn lend<'a>(&self, bytes: &'a [u8]) -> Result<Grant<'a, Reading>, Errno> {
        let lent = self.machine.lend(self.endpoint, bytes)?;
        Ok(Grant::new(&self.machine, lent))
    }

    /// Lets the peer fill `bytes` of VFS.
    pub fn lend_mut<'a>(&self, bytes: &'a mut [u8]) -> Result<Grant<'a, Writing>, Errno> {
        let bytes = Cell::from_mut(bytes).as_slice_of_cells();
        let lent = self
            .machine
            .lend_cells(self.endpoint, bytes, Access::Write)?;
        Ok(Grant::new(&self.machine, lent))
    }
}

/// What was said to who asked `R`.
pub fn said<R: Request<How = Ask>>(said: Said) -> Result<R::Reply, Errno> {
    answer_result::<R>(&said?)
}
