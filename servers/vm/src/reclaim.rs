//! Pages that programs map and nobody has changed: their file has the same, so they go before a process does. Programs
//! that run on touch them again, and have them read again; so what was not touched since the last look goes
//! first, and everything a few times until somebody ended or there is memory again: a machine that does nothing but read
//! the same pages again and again is of use to nobody.

use crate::frames::Frames;
use crate::pool::Pool;
use crate::region::{Backing, Flags};
use crate::server::Server;
use crate::space::Space;
use crate::table::{self, ACCESSED, DIRTY, FOREIGN, OWNER};

/// How often in a shortage what was touched goes as well.
const MOST: u32 = 8;
/// Frames taken at once.
const AT_ONCE: usize = 64;

impl Space {
    /// Unmaps clean file pages that were not touched since the last time. What is locked stays.
    fn let_go_of_clean(&self, frames: &Frames) {
        for region in self.regions.as_slice() {
            let of_file = matches!(region.backing, Backing::File { .. });
            if !of_file || region.flags.contains(Flags::LOCKED) {
                continue;
            }
            table::for_each(frames, self.top, region.start, region.end, |_, entry| {
                let frame = table::frame(entry);
                // A private copy is in no cache.
                if entry & (DIRTY | FOREIGN | OWNER) != 0 || frames.tag(frame) == 0 {
                    return entry;
                }
                if entry & ACCESSED != 0 {
                    return entry & !ACCESSED;
                }
                frames.release(frame);
                0
            });
        }
    }
}

impl Server {
    /// Makes room of what programs map of files; whether there is any more than before.
    pub(crate) fn reclaim(&mut self) -> bool {
        if self.reclaim_untouched() {
            return true;
        }
        // All of them looked touched since they were mapped, and now none does.
        if self.shortage.reclaims == MOST {
            return false;
        }
        self.shortage.reclaims += 1;
        self.reclaim_untouched()
    }

    fn reclaim_untouched(&mut self) -> bool {
        let frames = self.pool.frames;
        for space in self.spaces_of(false) {
            space.let_go_of_clean(frames);
        }
        let Pool { cache, .. } = &mut self.pool;
        cache.evict(frames, AT_ONCE) > 0
    }

    /// Whether services have used up too much of what programs leave to them, and nothing is left that
    /// files have as well. Caches are asked first, and answer later.
    pub(crate) fn is_short(&mut self) -> bool {
        while self.pool.exhausted() {
            if self.caches_have_some() || !self.reclaim() {
                return true;
            }
        }
        false
    }
}
