//! Texts being read.

use abi::Endpoint;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;

/// Texts kept at once; a reader that is overtaken by so many others gets a fresh text.
const KEPT: usize = 32;
/// Bytes kept at once.
const KEPT_BYTES: usize = 1 << 20;

type Key = (u64, Endpoint);

/// The texts, oldest first.
#[derive(Default)]
pub struct Snapshots(VecDeque<(Key, Rc<Vec<u8>>)>);

impl Snapshots {
    /// The text that `who` reads from file `ino`.
    pub fn get(&self, ino: u64, who: Endpoint) -> Option<Rc<Vec<u8>>> {
        let found = self.0.iter().find(|(key, _)| *key == (ino, who));
        found.map(|(_, text)| text.clone())
    }

    /// Keeps a text.
    pub fn keep(&mut self, ino: u64, who: Endpoint, text: Rc<Vec<u8>>) {
        self.forget(ino, who);
        self.0.push_back(((ino, who), text));
        while self.0.len() > 1 && (self.0.len() > KEPT || self.bytes() > KEPT_BYTES) {
            self.0.pop_front();
        }
    }

    /// The reader is done.
    pub fn forget(&mut self, ino: u64, who: Endpoint) {
        self.0.retain(|(key, _)| *key != (ino, who));
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(_, text)| text.len()).sum()
    }
}
