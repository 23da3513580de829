//! Reading ahead of page faults in files: which pages to ask for along with the one that is
//! missing, and mapping those that came.
//!
//! There is no state: the run of pages that the cache has right before those to be asked for
//! says how far a program has come in order, and as much again is asked for.

use crate::cache::Key;
use crate::fault::Access;
use crate::jobs::Job;
use crate::region::Flags;
use crate::server::Server;
use abi::PAGE;
use abi::proto::vm::Prot;
use alloc::vec::Vec;
use rt::room;

/// Pages asked for at least: the block of the file that the missing one is in. Another fault costs
/// more than three times what 32 pages cost that come along.
const BLOCK: u64 = 64;
/// The same where memory is short.
const LEAST: u64 = 32;
/// Pages asked for at most.
const MOST: u64 = 512;
/// Bytes of a program's data that it gets copies of before it writes them.
pub const OWN: u64 = 16 * PAGE;

impl Server {
    /// How many pages before and after the missing one, `key` at the job's cursor, are to come
    /// along.
    pub(crate) fn pages_around(&mut self, job: &Job, key: Key) -> (u64, u64) {
        let around = |block: u64| {
            let before = key.offset / PAGE % block;
            (before, block - before - 1)
        };
        let Ok((space, pool)) = self.space(job.who) else {
            return around(LEAST);
        };
        // Never at the expense of what others may need.
        if pool.frames.free() <= pool.frames.total() / 8 {
            return around(LEAST);
        }
        let (before, _) = around(BLOCK);
        let first = key.offset - before * PAGE;
        let from = first.saturating_sub(MOST * PAGE);
        let cached = pool.cache.range(key.file, from, first).rev();
        let run = cached
            .zip(1..)
            .take_while(|&((offset, _), n)| offset + n * PAGE == first)
            .count() as u64;
        let rest = space
            .regions
            .at(job.cursor)
            .map_or(0, |region| (region.end - job.cursor) / PAGE - 1);
        // Whole blocks.
        let wanted = before + 1 + rest.min(run.saturating_sub(before + 1));
        (before, wanted.next_multiple_of(BLOCK) - before - 1)
    }

    /// The page at the job's cursor was asked for and those around it: what came is mapped at
    /// once wherever the job's process maps the file.
    pub(crate) fn enter_around(&mut self, job: &Job, key: Key, (before, after): (u64, u64)) {
        let Ok((space, pool)) = self.space(job.who) else {
            return;
        };
        let first = key.offset - before * PAGE;
        let end = key.offset + (1 + after) * PAGE;
        let regions = space.regions.as_slice().iter();
        let regions = regions.filter(|region| region.file() == Some(key.file));
        // A favour, for which there may be no memory.
        let mut mapped = Vec::new();
        for region in regions {
            if room::push(&mut mapped, *region).is_err() {
                return;
            }
        }
        for region in &mapped {
            let start = region.offset_of(region.start);
            let from = region.start + first.saturating_sub(start);
            let to = (region.start + end.saturating_sub(start)).min(region.end);
            if from >= to {
                continue;
            }
            if region.private() && region.prot.contains(Prot::WRITE) {
                let written = job.access == Access::Write && (from..to).contains(&job.cursor);
                if region.flags.contains(Flags::DATA) {
                    space.own(pool, region, from, to.min(from + OWN));
                } else if written {
                    space.own(pool, region, job.cursor, to.min(job.cursor + OWN));
                }
            }
            space.enter_cached(pool, region, key.file, from, to);
        }
    }
}
