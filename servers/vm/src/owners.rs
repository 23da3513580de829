//! Who owns the frames in use: each frame counts once, so that the sum must be all of memory.

use crate::frames::Frames;
use crate::pool::Pool;
use crate::server::Server;
use crate::space::Space;
use crate::table::{self, FOREIGN};
use crate::window::Frame;
use abi::Errno;
use abi::kernel::USER_END;
use abi::proto::vm::{FrameFigures, OwnedFrames};
use alloc::vec::Vec;
use rt::room;

/// Frames that were counted already, a bit each by their places.
struct Seen<'a>(&'a Frames, Vec<u64>);

impl Seen<'_> {
    /// Whether this frame is counted for the first time.
    fn first(&mut self, frame: Frame) -> bool {
        let Some(place) = self.0.place(frame) else {
            return false;
        };
        let (word, bit) = (place / 64, 1 << (place % 64));
        match self.1.get_mut(word) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }
}

impl Server {
    /// The owners of all frames in use, without what leaked ([`Server::audit`]). Costs time for every page and page table there is.
    /// `ENOMEM`.
    pub fn owners(&self) -> Result<FrameFigures, Errno> {
        let pool = &self.pool;
        let words = pool.frames.places_with_table().div_ceil(64);
        let mut seen = Seen(pool.frames, room::vector(words)?);
        seen.1.resize(words, 0);
        let cached = pool.cache.iter().filter(|page| seen.first(page.1)).count() as u64;
        let (mut tables, mut services, mut programs) = (0, 0, 0);
        // A frame that the cache forgot while its file system and programs have it is the file
        // system's, so services come first.
        for (service, owned) in [(true, &mut services), (false, &mut programs)] {
            for space in self.spaces_of(service) {
                table::for_each_table(pool.frames, space.top, &mut |_, _| tables += 1);
                for_each_frame(pool, space, |frame| *owned += seen.first(frame) as u64);
            }
        }
        Ok(FrameFigures {
            heap: pool.frames.own() as u64,
            tables,
            cached,
            services,
            programs,
            total: pool.frames.total() as u64,
            lost: 0,
        })
    }

    /// The frames of the first service from this slot on, without what the cache has.
    pub fn service_frames(&self, slot: u64) -> Option<OwnedFrames> {
        let (slot, space) = self.next_service(usize::try_from(slot).ok()?)?;
        let pool = &self.pool;
        let mut frames = 0;
        for_each_frame(pool, space, |frame| {
            frames += pool.cache.key_of(pool.frames, frame).is_none() as u64;
        });
        let slot = slot as u64;
        Some(OwnedFrames { slot, frames })
    }
}

fn for_each_frame(pool: &Pool, space: &Space, mut f: impl FnMut(Frame)) {
    table::for_each(pool.frames, space.top, 0, USER_END, |_, entry| {
        if entry & FOREIGN == 0 {
            f(table::frame(entry));
        }
        entry
    });
}
