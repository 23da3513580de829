//! Copying an address space: both sides share all frames until one of them writes.

use crate::pool::Pool;
use crate::region::{Backing, Flags};
use crate::space::Space;
use crate::table::{self, Cursor, FOREIGN, NoMemory, WRITE};
use abi::sabotage;

impl Space {
    /// A copy of this space. Costs time for the pages that are present.
    pub fn fork(&self, pool: &mut Pool) -> Result<Space, NoMemory> {
        let mut child = Space::new(pool, self.limits)?;
        child.inherit_layout(self);
        match self.copy_into(&mut child, pool) {
            Ok(()) => Ok(child),
            Err(error) => {
                child.destroy(pool);
                Err(error)
            }
        }
    }

    fn copy_into(&self, child: &mut Space, pool: &mut Pool) -> Result<(), NoMemory> {
        let frames = pool.frames;
        let mut cursor = Cursor::new(child.top);
        let count = self.regions.as_slice().len();
        child.regions.reserve(count, usize::MAX)?;
        for region in self.regions.as_slice() {
            if region.flags.contains(Flags::NO_FORK) {
                continue;
            }
            let mut copy = *region;
            copy.flags.remove(Flags::LOCKED | Flags::FILLED);
            child.regions.insert(copy, &mut pool.files);
            if region.flags.contains(Flags::WIPE_ON_FORK) {
                continue;
            }
            // Private pages become read-only on both sides; the next write copies.
            let protect = region.private() && !matches!(region.backing, Backing::Physical { .. });
            let mut result = Ok(());
            table::for_each(
                frames,
                self.top,
                region.start,
                region.end,
                |address, entry| {
                    if result.is_err() {
                        return entry;
                    }
                    // Only a new table takes a frame.
                    let table = match cursor.same(address) {
                        Some(table) => Ok(table),
                        None => pool
                            .make_room()
                            .and_then(|()| cursor.table(frames, address)),
                    };
                    let kept = || pool.lab.sabotage & sabotage::REFUSED_FRAME_KEPT != 0;
                    if entry & FOREIGN == 0 && (table.is_ok() || kept()) {
                        frames.share(table::frame(entry));
                    }
                    let table = match table {
                        Ok(table) => table,
                        Err(error) => {
                            result = Err(error);
                            return entry;
                        }
                    };
                    let new = if protect { entry & !WRITE } else { entry };
                    table::set_in(frames, table, address, new);
                    new
                },
            );
            result?;
        }
        Ok(())
    }
}
