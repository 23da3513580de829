//! Statics of a single-threaded program.

use core::cell::{RefCell, RefMut};

/// A static that is borrowed for the length of an expression. Panics when borrowed twice,
/// which is a bug of the server.
pub struct Single<T>(RefCell<T>);

// SAFETY: a server has one thread and no signal handlers, so there is no second thread to
// share with.
unsafe impl<T> Sync for Single<T> {}

impl<T> Single<T> {
    /// A cell with this value.
    pub const fn new(value: T) -> Self {
        Single(RefCell::new(value))
    }

    /// The value, until the guard goes.
    pub fn borrow(&self) -> RefMut<'_, T> {
        self.0.borrow_mut()
    }
}
