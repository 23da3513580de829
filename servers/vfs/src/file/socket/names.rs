//! Who has which name.

use super::Socket;
use super::address::Address;
use crate::counters::Counters;
use abi::Errno;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::{Rc, Weak};
use core::cell::RefCell;

/// The ports given to who asks for none in particular.
const EPHEMERAL: core::ops::RangeInclusive<u16> = 32768..=60999;

/// Names that are no files, by the type of their sockets. Those of sockets that are gone are
/// swept out when they are in the way.
#[derive(Default)]
pub struct Names(RefCell<BTreeMap<(u32, Address), Weak<Socket>>>);

impl Names {
    /// The socket of type `kind` that `to` names.
    pub fn find(&self, kind: u32, to: &Address) -> Option<Rc<Socket>> {
        let names = self.0.borrow();
        if let Some(socket) = names.get(&(kind, to.clone())) {
            return socket.upgrade();
        }
        let Address::Inet(..) = to else {
            return None;
        };
        let mut same_kind = names.iter().filter(|((k, _), _)| *k == kind);
        same_kind.find_map(|((_, name), socket)| socket.upgrade().filter(|_| name.covers(to)))
    }

    /// Whether nobody has `name`, or a name that covers it.
    fn is_free(&self, kind: u32, name: &Address) -> bool {
        let names = self.0.borrow();
        !names.iter().any(|((k, other), socket)| {
            *k == kind && socket.strong_count() > 0 && other.covers(name)
        })
    }

    /// Gives `socket` a name: `EADDRINUSE`. A port 0, and an abstract name of no bytes when
    /// `choose`, are replaced by free ones.
    pub fn take(
        &self,
        socket: &Rc<Socket>,
        name: Address,
        choose: bool,
        counters: &Counters,
    ) -> Result<Address, Errno> {
        self.0
            .borrow_mut()
            .retain(|_, socket| socket.strong_count() > 0);
        let free = |name: &Address| self.is_free(socket.kind, name);
        let name = match name {
            Address::Inet(address, 0) => EPHEMERAL
                .map(|port| Address::Inet(address, port))
                .find(free)
                .ok_or(Errno::EADDRINUSE)?,
            Address::Abstract(name) if choose && name.is_empty() => (0..0x10_0000)
                .map(|_| counters.unique() & 0xf_ffff)
                .map(|n| Address::Abstract(format!("{n:05x}").into_bytes()))
                .find(free)
                .ok_or(Errno::EADDRINUSE)?,
            name if free(&name) => name,
            _ => return Err(Errno::EADDRINUSE),
        };
        let key = (socket.kind, name.clone());
        self.0.borrow_mut().insert(key, Rc::downgrade(socket));
        Ok(name)
    }
}
