//! Physical memory as VM sees it: one linear window.

use abi::{PAGE, PAGE_SIZE};

/// A physical page frame, by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct Frame(pub u32);

impl Frame {
    /// The frame that holds this physical address.
    pub const fn at(physical: u64) -> Frame {
        Frame((physical / PAGE) as u32)
    }

    /// Its physical address.
    pub const fn address(self) -> u64 {
        self.0 as u64 * PAGE
    }
}

/// A linear mapping of the physical addresses `[0, bytes)`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    base: *mut u8,
    frames: u32,
}

impl Window {
    /// A window whose physical address 0 is at `base`.
    ///
    /// # Safety
    /// `[base, base + bytes)` is mapped, page aligned, lives as long as the window and its
    /// copies, and is accessed through them only, apart from frames in which the caller
    /// keeps memory of its own.
    pub const unsafe fn new(base: *mut u8, bytes: u64) -> Window {
        Window {
            base,
            frames: (bytes / PAGE) as u32,
        }
    }

    /// How many frames it shows.
    pub const fn frames(&self) -> u32 {
        self.frames
    }

    /// Where the frame is. A frame outside the window is a bug in VM's tables, and using it
    /// would corrupt whatever lies there: that ends VM at once.
    #[inline(always)]
    pub fn page(&self, frame: Frame) -> *mut u8 {
        assert!(frame.0 < self.frames, "frame {frame:?} outside memory");
        self.base.wrapping_add(frame.0 as usize * PAGE_SIZE)
    }

    /// Clears a frame.
    pub fn zero(&self, frame: Frame) {
        // SAFETY: `page` checked the frame; no reference into the window exists.
        unsafe { self.page(frame).write_bytes(0, PAGE_SIZE) };
    }

    /// Clears the bytes of a frame from `from` on.
    pub fn zero_tail(&self, frame: Frame, from: usize) {
        let from = from.min(PAGE_SIZE);
        // SAFETY: `page` checked the frame, and `from` is inside it.
        unsafe { self.page(frame).add(from).write_bytes(0, PAGE_SIZE - from) };
    }

    /// Copies a whole frame.
    pub fn copy(&self, from: Frame, to: Frame) {
        assert!(from != to);
        // SAFETY: `page` checked both, and different frames do not overlap.
        unsafe {
            self.page(to)
                .copy_from_nonoverlapping(self.page(from), PAGE_SIZE)
        };
    }

    /// Reads bytes of a frame.
    pub fn read(&self, frame: Frame, offset: usize, buffer: &mut [u8]) {
        assert!(offset <= PAGE_SIZE && buffer.len() <= PAGE_SIZE - offset);
        // SAFETY: the range lies in the frame, and `buffer` is not part of the window.
        unsafe {
            buffer
                .as_mut_ptr()
                .copy_from_nonoverlapping(self.page(frame).add(offset), buffer.len())
        };
    }

    /// Writes bytes of a frame.
    pub fn write(&self, frame: Frame, offset: usize, bytes: &[u8]) {
        assert!(offset <= PAGE_SIZE && bytes.len() <= PAGE_SIZE - offset);
        // SAFETY: as for `read`.
        unsafe {
            self.page(frame)
                .add(offset)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
    }

    /// Entry `index` (modulo 512) of a page table.
    #[inline(always)]
    pub fn entry(&self, table: Frame, index: usize) -> u64 {
        // SAFETY: `page` checked the frame, the index stays in it, and it is aligned.
        unsafe { self.page(table).cast::<u64>().add(index & 511).read() }
    }

    /// The first entry in `[from, to)` (at most 512) that is not 0. `None`: there is none.
    /// Most entries of most tables are 0, so this decides what a walk costs.
    #[inline(always)]
    pub fn next_used(&self, table: Frame, from: usize, to: usize) -> Option<usize> {
        assert!(to <= 512);
        let entries = self.page(table).cast::<u64>();
        // SAFETY: `page` checked the frame, i is below 512 wherever it is read, and the page
        // is aligned.
        let read = |i: usize| unsafe { entries.add(i).read() };
        let mut i = from;
        while i < to {
            if read(i) != 0 {
                return Some(i);
            }
            i += 1;
            while i + 8 <= to && (i..i + 8).fold(0, |all, i| all | read(i)) == 0 {
                i += 8;
            }
        }
        None
    }

    /// Calls `f(index, entry)` for the first `most` entries in `[from, to)` (at most 512) that are
    /// not 0, and puts what it returns in their places. How many became 0.
    #[inline(always)]
    pub fn update_used(
        &self,
        table: Frame,
        from: usize,
        to: usize,
        most: u32,
        mut f: impl FnMut(usize, u64) -> u64,
    ) -> u32 {
        assert!(to <= 512);
        let entries = self.page(table).cast::<u64>();
        // SAFETY: as for `next_used`, here and below.
        let read = |i: usize| unsafe { entries.add(i).read() };
        let (mut i, mut left, mut gone) = (from, most, 0);
        while i < to && left > 0 {
            let entry = read(i);
            if entry != 0 {
                let new = f(i, entry);
                if new != entry {
                    // SAFETY: see above. Volatile: as for `set_entry`.
                    unsafe { entries.add(i).write_volatile(new) };
                    gone += (new == 0) as u32;
                }
                left -= 1;
                i += 1;
                continue;
            }
            i += 1;
            while i + 8 <= to && (i..i + 8).fold(0, |all, i| all | read(i)) == 0 {
                i += 8;
            }
        }
        gone
    }

    /// Sets entry `index` (modulo 512) of a page table.
    #[inline(always)]
    pub fn set_entry(&self, table: Frame, index: usize, entry: u64) {
        // SAFETY: as for `entry`. Volatile: the processor reads tables behind the compiler's
        // back.
        unsafe {
            self.page(table)
                .cast::<u64>()
                .add(index & 511)
                .write_volatile(entry)
        };
    }
}
