//! What Linux calls bring along ([`abi::kernel::Brings`]): the copy that a server is about to
//! make of a path or structure, made already.

use crate::ipc::Received;
use crate::kernel::call_with;
use abi::kernel::{Brings, INBOX, Out, calls};
use abi::routes::brings;
use abi::{Class, Endpoint, Errno};
use alloc::boxed::Box;
use core::cell::Cell;

/// The bytes that came with the message received last.
pub struct Inbox {
    /// Written by the kernel whenever a Linux call is received.
    memory: *const u8,
    /// Whose, from where, how many.
    content: Cell<Option<(Endpoint, u64, usize)>>,
}

impl Inbox {
    /// Registers memory that stays for ever. Without the kernel's consent nothing ever comes.
    pub fn new() -> Result<Inbox, Errno> {
        let page: &'static mut [u8; INBOX] = Box::leak(Box::new([0; INBOX]));
        let memory = &raw mut *page;
        let inbox = Out::to(page);
        // SAFETY: from now on it is read as a pointer only.
        unsafe { call_with(calls::SetInbox { inbox }) }?;
        Ok(Inbox {
            memory: memory.cast(),
            content: Cell::new(None),
        })
    }

    /// A message was received: what came before is gone. To be called for every message.
    pub fn received(&self, received: &Received) {
        let message = &received.message;
        let content = match (received.class, Brings::bytes_of(message)) {
            (Class::Linux, len @ 1..) => brings(message.kind)
                .map(|brings| (received.source, brings.address(message), len as usize)),
            _ => None,
        };
        self.content.set(content);
    }

    /// Fills `buffer` from `address` of `who`, if that is what came. Once: whoever looks again
    /// may want to see what has changed.
    pub fn take(&self, who: Endpoint, address: u64, buffer: &mut [u8]) -> bool {
        let Some((from, at, len)) = self.content.get() else {
            return false;
        };
        if (from, at) != (who, address) || buffer.len() > len.min(INBOX) {
            return false;
        }
        self.content.set(None);
        // SAFETY: INBOX bytes at `memory` are never freed, and the kernel writes them only while
        // this server receives.
        unsafe {
            self.memory
                .copy_to_nonoverlapping(buffer.as_mut_ptr(), buffer.len())
        };
        true
    }
}
