//! Every invariant of VM's data, checked from the ground up: for tests and for runs with the
//! VM_SANITY flag. Costs time proportional to all memory in use.

use crate::frames::Frames;
use crate::lab;
use crate::pool::Pool;
use crate::region::{Backing, Region};
use crate::space::Space;
use crate::table::{self, FOREIGN, NO_EXECUTE, OWNER, PRESENT, USER, WRITE};
use crate::window::Frame;
use abi::PAGE;
use abi::kernel::USER_END;
use abi::proto::vm::Prot;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use rt::room;

/// What is wrong where there is no memory to count in.
pub const NO_MEMORY: &str = "no memory to count frames in";

/// References found, by the frames' places.
struct References<'a>(&'a Frames, Vec<u32>);

impl References<'_> {
    fn add(&mut self, frame: Frame) {
        let place = self.0.place(frame);
        if let Some(count) = place.and_then(|place| self.1.get_mut(place)) {
            *count += 1;
        }
    }

    fn of(&self, frame: Frame) -> u32 {
        let place = self.0.place(frame);
        let count = place.and_then(|place| self.1.get(place));
        count.copied().unwrap_or(0)
    }
}

/// Checks everything; the first violation when there is one. Without, how many references to
/// frames are counted that nobody has: leaks, which do no other harm.
pub fn check<'a>(pool: &Pool, spaces: impl Iterator<Item = &'a Space>) -> Result<u64, String> {
    pool.frames.check()?;
    pool.cache.check(pool.frames)?;
    let places = pool.frames.places_with_table();
    let mut refs = References(pool.frames, room::vector(places).map_err(|_| NO_MEMORY)?);
    refs.1.resize(places, 0);
    let mut mapped = BTreeMap::new();
    for (_, frame) in pool.cache.iter() {
        refs.add(frame);
    }
    for space in spaces {
        check_regions(space)?;
        check_entries(pool, space, &mut refs)?;
        check_tables(pool, space, &mut refs)?;
        for file in space.regions.as_slice().iter().filter_map(Region::file) {
            *mapped.entry(file).or_insert(0u32) += 1;
        }
    }
    if !pool.files.iter().eq(mapped.iter().map(|(&f, &n)| (f, n))) {
        return Err("mapped files are miscounted".into());
    }
    check_frames(pool, &refs)
}

fn check_regions(space: &Space) -> Result<(), String> {
    let mut end = 0;
    for region in space.regions.as_slice() {
        let aligned = region.start.is_multiple_of(PAGE) && region.end.is_multiple_of(PAGE);
        if region.is_empty() || !aligned || region.end > USER_END || region.start < end {
            return Err(format!("region out of order: {region:x?} after {end:x}"));
        }
        end = region.end;
    }
    Ok(())
}

fn check_entries(pool: &Pool, space: &Space, refs: &mut References) -> Result<(), String> {
    let mut result = Ok(());
    table::for_each(pool.frames, space.top, 0, USER_END, |address, entry| {
        if result.is_ok() {
            result = match space.regions.at(address) {
                Some(region) => check_entry(pool, region, address, entry),
                None => Err(format!("page without region at {address:x}")),
            };
        }
        if entry & FOREIGN == 0 {
            refs.add(table::frame(entry));
        }
        entry
    });
    result
}

fn check_entry(pool: &Pool, region: &Region, address: u64, entry: u64) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what} at {address:x}: {entry:x} in {region:x?}"));
    let present = entry & PRESENT != 0 || lab::evicted(entry);
    if present == region.prot.is_empty() || entry & USER == 0 {
        return wrong("presence differs from access");
    }
    if (entry & NO_EXECUTE == 0) != region.prot.contains(Prot::EXEC) {
        return wrong("execution differs from access");
    }
    if entry & WRITE != 0 && !region.prot.contains(Prot::WRITE) {
        return wrong("writable page in a read-only region");
    }
    if (entry & FOREIGN != 0) != matches!(region.backing, Backing::Physical { .. }) {
        return wrong("foreign page");
    }
    if entry & FOREIGN != 0 {
        return Ok(());
    }
    let frame = table::frame(entry);
    if !pool.frames.managed(frame) {
        return wrong("page outside managed memory");
    }
    if region.private() {
        let alone = pool.frames.refs(frame) == 1 && pool.frames.tag(frame) == 0;
        if entry & WRITE != 0 && !alone && entry & OWNER == 0 {
            return wrong("private page is writable and shared");
        }
    } else if let (Some(file), Some(key)) = (region.file(), pool.cache.key_of(pool.frames, frame))
        && (key.file != file || key.offset != region.offset_of(address))
    {
        return wrong("shared page of another name");
    }
    Ok(())
}

fn check_tables(pool: &Pool, space: &Space, refs: &mut References) -> Result<(), String> {
    let mut result = Ok(());
    table::for_each_table(pool.frames, space.top, &mut |frame, level| {
        refs.add(frame);
        let entries = if level == 3 { 256 } else { 512 };
        let used = (0..entries)
            .filter(|&i| pool.window().entry(frame, i) != 0)
            .count();
        if used != pool.frames.tag(frame) as usize {
            result = Err(format!("table {frame:?} miscounts its entries"));
        }
        if used == 0 && level != 3 {
            result = Err(format!("empty table {frame:?}"));
        }
    });
    result
}

/// Every frame in use has at least the references that were found, and VM's own one without an
/// owner; how many more are counted.
fn check_frames(pool: &Pool, refs: &References) -> Result<u64, String> {
    let mut more = 0;
    for (frame, counted) in pool.frames.used() {
        let found = refs.of(frame);
        if counted < found {
            return Err(format!(
                "{frame:?} counts {counted} references, has {found}"
            ));
        }
        more += u64::from(counted - found);
    }
    let own = u64::from(pool.frames.own());
    more.checked_sub(own)
        .ok_or_else(|| format!("{more} frames without an owner, {own} are VM's"))
}
