//! Page tables: four levels of 512 entries, edited in place.
//!
//! The tag of a table's frame counts the entries in use, so that an empty table is freed
//! with its last entry. Entries of the upper half belong to the kernel and are not counted.

use crate::frames::Frames;
use crate::window::Frame;
use abi::{PAGE, proto::vm::Prot};

// Accessed and dirty are preset, so that the processor never has to write entries.
pub use abi::page_table::{ACCESSED, ADDRESS, DIRTY, NO_EXECUTE, PRESENT, UNCACHED, USER, WRITE};
use abi::page_table::{ENTRIES, index};

/// Software: a page of the cache in the space of the file system that fills it. Stays
/// writable although the frame is shared.
pub const OWNER: u64 = 1 << 9;
/// Software: not a frame of ours; holds no reference.
pub const FOREIGN: u64 = 1 << 10;

/// Addresses that one leaf table covers.
pub const LEAF_SPAN: u64 = ENTRIES as u64 * PAGE;

/// There is no free frame left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

/// The frame in an entry.
#[inline(always)]
pub const fn frame(entry: u64) -> Frame {
    Frame::at(entry & ADDRESS)
}

/// An entry for `frame` with access `prot`; `write` says whether writing is allowed *now*.
/// Without any access the entry keeps its page but is not present.
#[inline(always)]
pub const fn entry(frame: Frame, prot: Prot, write: bool) -> u64 {
    let mut entry = frame.address() | USER | ACCESSED;
    if !prot.is_empty() {
        entry |= PRESENT;
    }
    if write && prot.contains(Prot::WRITE) {
        entry |= WRITE | DIRTY;
    }
    if !prot.contains(Prot::EXEC) {
        entry |= NO_EXECUTE;
    }
    entry
}

/// An empty top-level table.
pub fn create(frames: &Frames) -> Result<Frame, NoMemory> {
    let table = frames.take().ok_or(NoMemory)?;
    frames.window().zero(table);
    Ok(table)
}

/// The leaf table that covers `address`, if there is one.
#[inline]
pub fn leaf(frames: &Frames, top: Frame, address: u64) -> Option<Frame> {
    let mut table = top;
    for level in [3, 2, 1] {
        let entry = frames.window().entry(table, index(address, level));
        if entry == 0 {
            return None;
        }
        table = frame(entry);
    }
    Some(table)
}

/// The leaf table that covers `address`, made if needed.
pub fn leaf_or_create(frames: &Frames, top: Frame, address: u64) -> Result<Frame, NoMemory> {
    let window = frames.window();
    let mut table = top;
    for level in [3, 2, 1] {
        let index = index(address, level);
        let entry = window.entry(table, index);
        table = if entry != 0 {
            frame(entry)
        } else {
            let Some(new) = frames.take() else {
                prune(frames, top, address);
                return Err(NoMemory);
            };
            window.zero(new);
            let entry = new.address() | PRESENT | WRITE | USER | ACCESSED;
            window.set_entry(table, index, entry);
            frames.set_tag(table, frames.tag(table) + 1);
            new
        };
    }
    Ok(table)
}

/// Frees the tables on the way to `address` that are empty.
fn prune(frames: &Frames, top: Frame, address: u64) {
    let page = abi::page_down(address);
    for_each(frames, top, page, page + PAGE, |_, entry| entry);
}

/// The leaf entry of `address`; 0 when nothing is there.
#[inline]
pub fn get(frames: &Frames, top: Frame, address: u64) -> u64 {
    match leaf(frames, top, address) {
        Some(table) => frames.window().entry(table, index(address, 0)),
        None => 0,
    }
}

/// The entry of `address` in its leaf table.
#[inline]
pub fn get_in(frames: &Frames, table: Frame, address: u64) -> u64 {
    frames.window().entry(table, index(address, 0))
}

/// Sets an entry of a leaf table that stays in use.
#[inline]
pub fn set_in(frames: &Frames, table: Frame, address: u64, new: u64) {
    let window = frames.window();
    let index = index(address, 0);
    let old = window.entry(table, index);
    if (old == 0) != (new == 0) {
        let tag = frames.tag(table);
        frames.set_tag(table, if new == 0 { tag - 1 } else { tag + 1 });
    }
    window.set_entry(table, index, new);
}

/// Writes entries at rising addresses; remembers the leaf table of the last.
pub struct Cursor {
    top: Frame,
    span: u64,
    table: Frame,
}

impl Cursor {
    /// A cursor into the tables below `top`.
    pub const fn new(top: Frame) -> Cursor {
        Cursor {
            top,
            span: u64::MAX,
            table: top,
        }
    }

    /// The leaf table of `address`, made if needed.
    #[inline]
    pub fn table(&mut self, frames: &Frames, address: u64) -> Result<Frame, NoMemory> {
        let span = address / LEAF_SPAN;
        if span != self.span {
            self.table = leaf_or_create(frames, self.top, address)?;
            self.span = span;
        }
        Ok(self.table)
    }

    /// The leaf table of `address`, if the address before was in it, too.
    #[inline(always)]
    pub fn same(&self, address: u64) -> Option<Frame> {
        (address / LEAF_SPAN == self.span).then_some(self.table)
    }

    /// The entry of `address`, whose leaf table is made if needed.
    #[inline]
    pub fn get(&mut self, frames: &Frames, address: u64) -> Result<u64, NoMemory> {
        let table = self.table(frames, address)?;
        Ok(frames.window().entry(table, index(address, 0)))
    }

    /// Sets the entry of `address`.
    #[inline]
    pub fn set(&mut self, frames: &Frames, address: u64, entry: u64) -> Result<(), NoMemory> {
        let table = self.table(frames, address)?;
        set_in(frames, table, address, entry);
        Ok(())
    }
}

/// Calls `f(address, entry)` for every entry in use in `[start, end)`, in order, and puts
/// what it returns in its place; frees tables that are empty then. Costs time for what is
/// there, not for the size of the range.
pub fn for_each(
    frames: &Frames,
    top: Frame,
    start: u64,
    end: u64,
    mut f: impl FnMut(u64, u64) -> u64,
) {
    if start < end {
        walk(frames, top, 3, start, end, &mut f);
    }
}

/// The upper levels of [`for_each`].
fn walk(
    frames: &Frames,
    table: Frame,
    level: u32,
    start: u64,
    end: u64,
    f: &mut impl FnMut(u64, u64) -> u64,
) {
    let window = frames.window();
    let size = PAGE << (9 * level);
    let base = start & !((size << 9) - 1);
    let (first, last) = (index(start, level), index(end - 1, level));
    let before = frames.tag(table);
    let (mut used, mut seen) = (before, 0);
    let mut next = first;
    while let Some(i) = window.next_used(table, next, last + 1) {
        next = i + 1;
        let child = frame(window.entry(table, i));
        let from = base + i as u64 * size;
        let (start, end) = (start.max(from), end.min(from + size));
        if level == 1 {
            walk_leaf(frames, child, from, start, end, f);
        } else {
            walk(frames, child, level - 1, start, end, f);
        }
        if frames.tag(child) == 0 {
            window.set_entry(table, i, 0);
            frames.release(child);
            used -= 1;
        }
        seen += 1;
        if seen == before {
            break;
        }
    }
    if used != before {
        frames.set_tag(table, used);
    }
}

/// The lowest level of [`for_each`]: a table that covers addresses from `base`.
#[inline(always)]
fn walk_leaf(
    frames: &Frames,
    table: Frame,
    base: u64,
    start: u64,
    end: u64,
    f: &mut impl FnMut(u64, u64) -> u64,
) {
    let (first, last) = (index(start, 0), index(end - 1, 0));
    let used = frames.tag(table);
    let gone = frames
        .window()
        .update_used(table, first, last + 1, used, |i, entry| {
            f(base + i as u64 * PAGE, entry)
        });
    if gone != 0 {
        frames.set_tag(table, used - gone);
    }
}

/// Calls `f(table)` for the top-level table and every table below it.
pub fn for_each_table(frames: &Frames, top: Frame, f: &mut impl FnMut(Frame, u32)) {
    fn visit(frames: &Frames, table: Frame, level: u32, f: &mut impl FnMut(Frame, u32)) {
        f(table, level);
        let lower = if level == 3 { 256 } else { 512 };
        for i in (0..lower).filter(|_| level > 0) {
            let entry = frames.window().entry(table, i);
            if entry != 0 {
                visit(frames, frame(entry), level - 1, f);
            }
        }
    }
    visit(frames, top, 3, f);
}
