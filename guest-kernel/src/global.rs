//! The kernel's variables.

use core::cell::UnsafeCell;

/// A variable of the kernel, which is one thread of control: it is entered by a trap, runs with
/// interrupts off and is not entered again before it leaves. Values go in and out whole, so no
/// borrow of one is ever alive across another use.
#[repr(transparent)]
pub struct Global<T: Copy>(UnsafeCell<T>);

// SAFETY: one thread of control, see above.
unsafe impl<T: Copy> Sync for Global<T> {}

impl<T: Copy> Global<T> {
    /// A variable with this value.
    pub const fn new(value: T) -> Self {
        Global(UnsafeCell::new(value))
    }

    /// Its value.
    #[inline(always)]
    pub fn get(&self) -> T {
        // SAFETY: nobody writes meanwhile, and no reference into the cell exists.
        unsafe { *self.0.get() }
    }

    /// Changes it.
    #[inline(always)]
    pub fn set(&self, value: T) {
        // SAFETY: as in `get`.
        unsafe { *self.0.get() = value };
    }
}

impl<T: Copy, const N: usize> Global<[T; N]> {
    /// Element `index`; the last one when there is none of that number.
    #[inline(always)]
    pub fn at(&self, index: usize) -> T {
        // SAFETY: as in `get`; the index is in range.
        unsafe { (*self.0.get())[index.min(N - 1)] }
    }

    /// Changes element `index`, if there is one.
    #[inline(always)]
    pub fn put(&self, index: usize, value: T) {
        if index < N {
            // SAFETY: as in `get`; the index is in range.
            unsafe { (*self.0.get())[index] = value };
        }
    }
}
