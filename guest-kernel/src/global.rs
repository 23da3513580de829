//! The kernel's variables.
//!
//! Why so: docs/decisions/029-cells.md.

use core::cell::Cell;
use core::ops::Deref;

/// What the kernel alone uses, and the kernel is one thread of control: it is entered by a trap, runs with
/// interrupts off and is not entered again before it leaves. So there is never another thread that could
/// share this, and cells will do for all that changes.
#[repr(transparent)]
pub struct Single<T>(T);

// SAFETY: one thread of control, see above.
unsafe impl<T> Sync for Single<T> {}

impl<T> Single<T> {
    /// A variable that has this in it.
    pub const fn of(value: T) -> Self {
        Single(value)
    }

    /// What is in it, for constants.
    pub const fn inner(&self) -> &T {
        &self.0
    }
}

impl<T> Deref for Single<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A variable whose value goes in and out whole.
pub type Global<T> = Single<Cell<T>>;

impl<T: Copy> Global<T> {
    /// A variable with this value.
    pub const fn new(value: T) -> Self {
        Single(Cell::new(value))
    }
}

impl<T: Copy, const N: usize> Global<[T; N]> {
    /// The elements, each a variable.
    #[inline(always)]
    pub fn row(&self) -> &[Cell<T>; N] {
        self.0.as_array_of_cells()
    }

    /// Element `index`; the last one when there is none of that number.
    #[inline(always)]
    pub fn at(&self, index: usize) -> T {
        self.row()[index.min(N - 1)].get()
    }

    /// Changes element `index`, if there is one.
    #[inline(always)]
    pub fn put(&self, index: usize, value: T) {
        if let Some(element) = self.row().get(index) {
            element.set(value);
        }
    }
}
