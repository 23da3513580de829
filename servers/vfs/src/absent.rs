//! Paths that were looked for and not there, for a host that may have them.
//!
//! The newest are kept, each once, as far as there is room. A run that nobody asked about has no
//! [`Absent`], and pays for a branch where a path leads nowhere.

use abi::Errno;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use rt::room;

/// The longest path that is kept, bytes.
const LONGEST: usize = 512;
/// Bytes of paths that are kept.
const ROOM: usize = 32 << 10;

/// See the module.
#[derive(Default)]
pub struct Absent {
    kept: RefCell<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The oldest first.
    order: VecDeque<Rc<[u8]>>,
    known: BTreeSet<Rc<[u8]>>,
    bytes: usize,
}

impl Absent {
    /// There is nothing at `path`.
    pub fn note(&self, path: &[u8]) {
        let kept = &mut *self.kept.borrow_mut();
        if path.len() > LONGEST || kept.known.contains(path) {
            return;
        }
        let path: Rc<[u8]> = path.into();
        kept.bytes += path.len() + 1;
        kept.known.insert(path.clone());
        kept.order.push_back(path);
        while kept.bytes > ROOM
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.bytes -= oldest.len() + 1;
            kept.known.remove(&oldest);
        }
    }

    /// There is something at `path` now.
    pub fn forget(&self, path: &[u8]) {
        let kept = &mut *self.kept.borrow_mut();
        if kept.known.remove(path) {
            kept.bytes -= path.len() + 1;
            kept.order.retain(|known| **known != *path);
        }
    }

    /// There may be something anywhere.
    pub fn forget_all(&self) {
        self.kept.take();
    }

    /// What is kept, a NUL behind each path. `ENOMEM`.
    pub fn text(&self) -> Result<Vec<u8>, Errno> {
        let kept = self.kept.borrow();
        let mut text = room::vector(kept.bytes)?;
        for path in &kept.order {
            text.extend_from_slice(path);
            text.push(0);
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn the_newest_paths_are_kept_once() {
        let absent = Absent::default();
        for path in ["/a", "/b", "/a", "/c"] {
            absent.note(path.as_bytes());
        }
        absent.forget(b"/b");
        absent.forget(b"/never");
        assert_eq!(absent.text().unwrap(), b"/a\0/c\0");
        absent.note(&[b'x'; LONGEST + 1]);
        for number in 0..10_000 {
            absent.note(format!("/directory/{number}").as_bytes());
        }
        let text = absent.text().unwrap();
        assert!(text.len() <= ROOM && text.len() > ROOM - 32);
        assert!(text.ends_with(b"/directory/9998\0/directory/9999\0"));
        assert_eq!(text.len(), absent.kept.borrow().bytes);
        assert_eq!(
            absent.kept.borrow().order.len(),
            absent.kept.borrow().known.len()
        );
    }
}
