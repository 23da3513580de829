//! All sockets: their names, and the files that are under way between them.

use crate::file::socket::Socket;
use crate::file::socket::inbox::Inbox;
use crate::file::socket::names::Names;
use crate::file::{Kind, OpenFile};
use crate::vnode::Vnode;
use abi::Errno;
use alloc::collections::{BTreeMap, LinkedList};
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use rt::room;

/// Files that may be under way at once.
const UNDER_WAY_MAX: usize = 4096;
/// So many are not worth looking at.
const COLLECT_MIN: usize = 64;

fn key(vnode: &Vnode) -> (u64, u64) {
    (vnode.mount.dev, vnode.ino)
}

/// The sockets of the machine.
#[derive(Default)]
pub struct Network {
    /// Who is called what.
    pub names: Names,
    sockets: RefCell<BTreeMap<u64, Weak<Socket>>>,
    /// Sockets whose names are files, by device and inode number.
    bound: RefCell<BTreeMap<(u64, u64), Weak<Socket>>>,
    /// Files under way.
    under_way: Cell<usize>,
    /// Files under way when those out of reach are looked for the next time.
    collect_at: Cell<usize>,
    /// Files that are let go of: lists, because there may be many and their end needs no memory.
    graves: RefCell<LinkedList<Vec<Rc<OpenFile>>>>,
    burying: Cell<bool>,
}

impl Network {
    /// A socket was made.
    pub fn register(&self, socket: &Rc<Socket>) {
        let mut sockets = self.sockets.borrow_mut();
        sockets.insert(socket.id, Rc::downgrade(socket));
    }

    /// A socket is gone.
    pub fn forget(&self, socket: u64) {
        self.sockets.borrow_mut().remove(&socket);
    }

    /// A socket is named by a file, which it keeps from now on.
    pub fn bind(&self, vnode: &Vnode, socket: &Rc<Socket>) {
        let mut bound = self.bound.borrow_mut();
        bound.insert(key(vnode), Rc::downgrade(socket));
    }

    /// The socket that a file names is gone.
    pub fn unbind(&self, vnode: &Vnode) {
        self.bound.borrow_mut().remove(&key(vnode));
    }

    /// The socket that a file names, while there is one.
    pub fn bound_to(&self, vnode: &Vnode) -> Option<Rc<Socket>> {
        self.bound.borrow().get(&key(vnode))?.upgrade()
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
        if files.is_empty() {
            return;
        }
        self.graves.borrow_mut().push_back(files);
        if self.burying.replace(true) {
            return;
        }
        while let Some(file) = self.next_to_bury() {
            drop(file);
        }
        self.burying.set(false);
    }

    fn next_to_bury(&self) -> Option<Rc<OpenFile>> {
        let mut graves = self.graves.borrow_mut();
        let last = graves.back_mut()?;
        let file = last.pop();
        if last.is_empty() {
            graves.pop_back();
        }
        file
    }

    /// Lets go of all files in a socket that nobody will read from.
    pub fn bury_all(&self, inbox: &RefCell<Inbox>) {
        let all = inbox.take();
        for files in all.into_rights() {
            self.arrived(files.len());
            self.bury(files);
        }
    }

    /// Frees sockets that nobody can reach because they are only under way in each other.
    ///
    /// A socket's file all of whose references are under way is alive only if it is under way
    /// to one that is.
    /// Without memory for the search it is left for later.
    pub fn collect(&self) {
        if self.under_way.get() == 0 {
            return;
        }
        let Ok(mut sockets) = room::vector(self.sockets.borrow().len()) else {
            return;
        };
        sockets.extend(self.sockets.borrow().values().filter_map(Weak::upgrade));
        let Ok(mut alive) = room::vector(sockets.len()) else {
            return;
        };
        // Sockets that are under way, by the file's number, with the references of each that are.
        let Ok(mut under_way) = room::vector(self.under_way.get()) else {
            return;
        };
        for socket in &sockets {
            for file in socket.inbox.borrow().rights() {
                if let Kind::Socket(_) = file.kind
                    && under_way.len() < under_way.capacity()
                {
                    under_way.push((file.clone(), 1));
                }
            }
        }
        under_way.sort_unstable_by_key(|(file, _)| file.id);
        under_way.dedup_by(|(file, count), (before, sum)| {
            let same = file.id == before.id;
            *sum += if same { *count } else { 0 };
            same
        });
        // One reference more is ours.
        under_way.retain(|(file, count)| Rc::strong_count(file) == *count + 1);
        let Ok(mut suspects) = room::vector(under_way.len()) else {
            return;
        };
        suspects.extend(under_way.iter().filter_map(|(file, _)| match &file.kind {
            Kind::Socket(socket) => Some(socket.id),
            _ => None,
        }));
        suspects.sort_unstable();
        sockets.retain(|socket: &Rc<Socket>| suspects.binary_search(&socket.id).is_err());
        alive.append(&mut sockets);
        while let Some(socket) = alive.pop() {
            for file in socket.inbox.borrow().rights() {
                let at = under_way.binary_search_by_key(&file.id, |(file, _)| file.id);
                if let Ok(at) = at
                    && let (file, _) = under_way.remove(at)
                    && let Kind::Socket(saved) = &file.kind
                {
                    alive.push(saved.clone());
                }
            }
        }
        for (file, _) in under_way {
            if let Kind::Socket(socket) = &file.kind {
                self.bury_all(&socket.inbox);
            }
            self.bury(alloc::vec![file]);
        }
    }
}
