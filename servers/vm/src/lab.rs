//! What the laboratory does to memory behind VM's back, and how VM undoes it: pages that were
//! taken away ([`EVICTED`]), and frames that are missing although page tables name them.

use crate::cache::Key;
use crate::pool::Pool;
use crate::region::Backing;
use crate::server::Server;
use crate::table::{self, FOREIGN, OWNER, PRESENT};
use crate::window::Frame;
use abi::trace::Restored;
use abi::trace::{Control, WITHDRAWN_COMES};
use abi::{Endpoint, PAGE, sabotage};

/// Software: not present although the region allows access, because the laboratory did as if
/// VM had evicted the page.
pub const EVICTED: u64 = abi::lab::PTE_EVICTED;

/// The laboratory as VM sees it.
#[derive(Clone, Copy, Default)]
pub struct Lab {
    control: Option<&'static Control>,
    /// Deliberate defects ([`abi::sabotage`]).
    pub sabotage: u64,
}

impl Lab {
    /// The laboratory that shares `control` with the kernel and the VMM.
    pub fn new(control: Option<&'static Control>, sabotage: u64) -> Lab {
        Lab { control, sabotage }
    }

    /// Whether there is one: then VM's data are checked whenever somebody counts them.
    pub fn present(&self) -> bool {
        self.control.is_some()
    }

    /// Whether a frame is missing.
    #[inline(always)]
    pub fn withdrawn(&self, frame: Frame) -> bool {
        self.control.is_some() && self.listed(frame)
    }

    #[cold]
    fn listed(&self, frame: Frame) -> bool {
        self.control.is_some_and(|control| {
            // SAFETY: a shared reference to plain integers; volatile, because the VMM writes them
            // while this machine stands still.
            let (count, frames) = unsafe {
                (
                    (&raw const control.withdrawn_count).read_volatile(),
                    (&raw const control.withdrawn).read_volatile(),
                )
            };
            let listed = frames.iter().take(count as usize);
            listed
                .into_iter()
                .any(|&at| at & !WITHDRAWN_COMES == frame.address())
        })
    }

    /// Has the VMM bring a missing frame back.
    pub fn restore(&self, frame: Frame) -> Restored {
        rt::kernel::frame_restore(frame.address())
    }
}

/// Whether this entry's page was taken away.
#[inline(always)]
pub const fn evicted(entry: u64) -> bool {
    entry & (EVICTED | PRESENT) == EVICTED
}

impl Server {
    /// Completes an eviction at `page` of `who`, if there was one: a clean page of a file is
    /// dropped, from the cache too when only its file system holds it besides, so that it has to
    /// be asked for again. Everything else VM has the only copy of and makes present again.
    #[cold]
    pub(crate) fn complete_eviction(&mut self, who: Endpoint, page: u64) {
        let Ok((space, pool)) = self.space(who) else {
            return;
        };
        let top = space.top;
        let entry = table::get(pool.frames, top, page);
        let Some(region) = space.regions.at(page).copied().filter(|_| evicted(entry)) else {
            return;
        };
        let frame = table::frame(entry);
        let key = match region.backing {
            Backing::File { file, .. } if entry & FOREIGN == 0 && !file.is_memory() => {
                let offset = region.offset_of(page);
                Some(Key { file, offset }).filter(|&key| pool.cache.peek(key) == Some(frame))
            }
            _ => None,
        };
        let Some(key) = key else {
            let present = if region.prot.is_empty() { 0 } else { PRESENT };
            set(pool, top, page, entry & !EVICTED | present);
            return;
        };
        pool.note_written(entry);
        set(pool, top, page, 0);
        if pool.lab.sabotage & sabotage::FRAME_LEAKED == 0 {
            pool.frames.release(frame);
        }
        self.tell_written();
        if !self.mapped_by_programs(frame) && !self.pool.cache.is_dirty(key) {
            self.pool.cache.remove(self.pool.frames, key);
        }
    }

    /// Whether anybody but a file system (its owner) maps the frame.
    fn mapped_by_programs(&self, frame: Frame) -> bool {
        let frames = self.pool.frames;
        // The cache's own reference, and one for each mapping.
        frames.refs(frame)
            > 1 + self
                .spaces()
                .map(|space| {
                    let mut owners = 0;
                    table::for_each(frames, space.top, 0, abi::kernel::USER_END, |_, entry| {
                        owners += (entry & OWNER != 0 && table::frame(entry) == frame) as u32;
                        entry
                    });
                    owners
                })
                .sum::<u32>()
    }
}

fn set(pool: &Pool, top: Frame, page: u64, entry: u64) {
    // Not through a cursor: the table may be empty afterwards.
    table::for_each(pool.frames, top, page, page + PAGE, |_, _| entry);
}
