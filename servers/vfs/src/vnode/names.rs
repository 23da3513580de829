//! The bounds of the name cache. The names themselves are in the vnodes of their directories.

use super::Vnode;
use crate::accounts::names_most;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::{Rc, Weak};
use core::cell::RefCell;

/// A cached name and the directory it is in.
type CachedName = (Weak<Vnode>, Box<[u8]>);

/// Keeps the number of cached names in bounds: the oldest goes first.
pub struct NameCache {
    order: RefCell<VecDeque<CachedName>>,
    most: usize,
}

impl NameCache {
    /// For a machine with `memory` bytes.
    pub fn new(memory: u64) -> NameCache {
        NameCache {
            order: RefCell::default(),
            most: names_most(memory),
        }
    }

    /// A name was added to `directory`.
    pub fn added(&self, directory: &Rc<Vnode>, name: &[u8]) {
        let mut order = self.order.borrow_mut();
        let full = order.len() >= self.most || order.try_reserve(1).is_err();
        let oldest = if full { order.pop_front() } else { None };
        let new = (Rc::downgrade(directory), name.into());
        // Without memory for even one this name is the one that goes.
        let oldest = if full && oldest.is_none() {
            Some(new)
        } else {
            order.push_back(new);
            oldest
        };
        drop(order);
        if let Some(oldest) = oldest {
            forget(oldest);
        }
    }

    /// Forgets the oldest name; `false` when there was none.
    pub fn forget_oldest(&self) -> bool {
        let oldest = self.order.borrow_mut().pop_front();
        oldest.map(forget).is_some()
    }

    /// Forgets everything (an unmount, or a check for leaks).
    pub fn clear(&self) {
        self.order.take().into_iter().for_each(forget);
    }
}

fn forget((directory, name): CachedName) {
    if let Some(directory) = directory.upgrade() {
        directory.forget(&name);
    }
}
