//! All sockets: their names, and the files that are under way between them.

use crate::file::{Kind, OpenFile};
use crate::socket::Socket;
use crate::socket::address::Names;
use abi::Errno;
use alloc::collections::BTreeMap;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use rt::{fallible, heap};

/// Files that may be under way at once.
const UNDER_WAY_MAX: usize = 4096;
/// So many are not worth looking at.
const COLLECT_MIN: usize = 64;

/// The sockets of the machine.
#[derive(Default)]
pub struct Network {
    /// Who is called what.
    pub names: Names,
    sockets: RefCell<Vec<Weak<Socket>>>,
    /// Sockets registered before the dead are swept out the next time.
    sweep_at: Cell<usize>,
    /// Files under way.
    under_way: Cell<usize>,
    /// Files under way when those out of reach are looked for the next time.
    collect_at: Cell<usize>,
    graves: RefCell<Vec<Rc<OpenFile>>>,
    burying: Cell<bool>,
}

impl Network {
    /// A socket was made.
    pub fn register(&self, socket: &Rc<Socket>) {
        let mut sockets = self.sockets.borrow_mut();
        if sockets.len() >= self.sweep_at.get() {
            sockets.retain(|socket| socket.strong_count() > 0);
            self.sweep_at.set(2 * sockets.len() + 64);
        }
        sockets.push(Rc::downgrade(socket));
    }

    /// `count` files are about to be sent: `ETOOMANYREFS` when too many are under way.
    pub fn check_room(&self, count: usize) -> Result<(), Errno> {
        if self.under_way.get() >= self.collect_at.get() {
            self.collect();
            self.collect_at.set(2 * self.under_way.get() + COLLECT_MIN);
        }
        if self.under_way.get() + count > UNDER_WAY_MAX {
            return Err(Errno::ETOOMANYREFS);
        }
        Ok(())
    }

    /// Files were sent.
    pub fn sent(&self, count: usize) {
        self.under_way.set(self.under_way.get() + count);
    }

    /// Files are under way no more.
    pub fn arrived(&self, count: usize) {
        self.under_way.set(self.under_way.get() - count);
    }

    /// Lets go of files, one after the other: a file may be a socket with files in it, and
    /// those likewise, deeper than a stack is.
    pub fn bury(&self, files: Vec<Rc<OpenFile>>) {
        self.graves.borrow_mut().extend(files);
        if self.burying.replace(true) {
            return;
        }
        loop {
            let file = self.graves.borrow_mut().pop();
            match file {
                Some(file) => drop(file),
                None => break,
            }
        }
        self.burying.set(false);
    }

    /// Frees sockets that nobody can reach because they are only under way in each other.
    ///
    /// A socket's file all of whose references are under way is alive only if it is under way
    /// to one that is.
    pub fn collect(&self) {
        // Without memory to look for them they are found another time.
        let sockets = fallible::collect(self.sockets.borrow().iter().filter_map(Weak::upgrade));
        let Ok(sockets) = sockets else { return };
        // By file: references under way, and the socket it is.
        let mut under_way: BTreeMap<u64, (Rc<OpenFile>, usize)> = BTreeMap::new();
        for socket in &sockets {
            for file in socket.inbox.borrow().rights() {
                if let Kind::Socket(_) = file.kind {
                    if !heap::ready() {
                        return;
                    }
                    under_way
                        .entry(file.id)
                        .or_insert_with(|| (file.clone(), 0))
                        .1 += 1;
                }
            }
        }
        // One reference more is ours.
        under_way.retain(|_, (file, count)| Rc::strong_count(file) == *count + 1);
        let suspect = |socket: &Rc<Socket>, under_way: &BTreeMap<u64, (Rc<OpenFile>, usize)>| {
            under_way
                .values()
                .any(|(file, _)| matches!(&file.kind, Kind::Socket(s) if Rc::ptr_eq(s, socket)))
        };
        let (mut alive, _): (Vec<_>, Vec<_>) = sockets
            .into_iter()
            .partition(|socket| !suspect(socket, &under_way));
        while let Some(socket) = alive.pop() {
            for file in socket.inbox.borrow().rights() {
                if let Some((file, _)) = under_way.remove(&file.id)
                    && let Kind::Socket(saved) = &file.kind
                {
                    alive.push(saved.clone());
                }
            }
        }
        let mut garbage = Vec::new();
        for (file, _) in under_way.into_values() {
            if let Kind::Socket(socket) = &file.kind {
                let files = socket.inbox.borrow_mut().take_rights();
                self.arrived(files.len());
                garbage.extend(files);
            }
            garbage.push(file);
        }
        self.bury(garbage);
    }
}
