//! Requests to VM that travel together: a visit to the kernel costs more than what most of
//! them do. They are done in order, when something has to come after them or all are there.

use super::backend;
use crate::state::Caller;
use crate::vnode::Vnode;
use abi::message::request::Called;
use abi::{Errno, Message, Request};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use libexec::Step;

/// Requests that were not sent yet.
#[derive(Default)]
pub struct Batch<'a> {
    requests: Vec<Message>,
    /// The file mappings among them, by place; each holds a reference on its file.
    mappings: Vec<(usize, &'a Rc<Vnode>, Step)>,
    /// The first request was done: there is no way back.
    begun: bool,
}

impl<'a> Batch<'a> {
    /// Adds a request.
    pub fn push<R: Request<How: Called>>(&mut self, request: R) {
        self.requests.push(request.encode());
    }

    /// Adds a [`Step::MapFile`], which is done in another way if VM refuses it.
    pub fn push_mapping<R: Request<How: Called>>(
        &mut self,
        vnode: &'a Rc<Vnode>,
        step: Step,
        request: R,
    ) {
        vnode.mount.map(vnode);
        self.mappings.push((self.requests.len(), vnode, step));
        self.push(request);
    }

    /// Whether anything was done to the process.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Sends what is there. After an error nothing is left to send.
    pub async fn flush(&mut self, c: &Caller) -> Result<(), Errno> {
        let requests = core::mem::take(&mut self.requests);
        let mappings = core::mem::take(&mut self.mappings);
        let mut sent = 0;
        while sent < requests.len() {
            let (done, status) = c.vfs.base.machine.call_vm_all(&requests[sent..]);
            self.begun |= done > 0;
            sent += done;
            let Err(errno) = status else {
                break;
            };
            let refused = mappings.iter().find(|(place, ..)| *place == sent);
            let result = match refused {
                Some((_, vnode, step)) => {
                    // The reference of a mapping that is not there.
                    vnode.mount.unmap(vnode.ino, 1);
                    sent += 1;
                    // This can need a batch of its own.
                    Box::pin(backend::copy_instead(c, vnode, *step)).await
                }
                None => Err(errno),
            };
            if result.is_err() {
                let unsent = mappings.iter().filter(|(place, ..)| *place >= sent);
                unsent.for_each(|(_, vnode, _)| vnode.mount.unmap(vnode.ino, 1));
                return result;
            }
        }
        Ok(())
    }
}
