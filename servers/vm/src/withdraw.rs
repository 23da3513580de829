//! Taking pages from a file: the one way in which a page that programs map ceases to be the
//! file's. Truncation, another page under the same name, a file that is gone and a file system that
//! is gone all come here, and none leaves a mapping behind: who touches the memory next faults, and
//! VM asks the file system what is there now.
//!
//! Why so: docs/decisions/018-withdrawal.md.

use crate::cache::Key;
use crate::files::FileId;
use crate::frames::Frames;
use crate::region::{Backing, Region};
use crate::server::Server;
use crate::space::Space;
use crate::table;
use abi::proto::vm::CacheForget;
use abi::{Endpoint, Errno, PAGE};

/// What becomes of private mappings of the pages that are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Private {
    /// They stay as they are: nothing that is done to them could be lost.
    Stay,
    /// Pages that were not copied yet are taken, copies stay.
    Follow,
    /// Copies are taken, too: there is no file behind them any more.
    Go,
}

/// What is taken: pages of some files of one device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Withdrawn {
    /// Device.
    pub dev: u64,
    /// Inode; all of the device without one.
    pub ino: Option<u64>,
    /// First file offset, page aligned.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// See [`Private`].
    pub private: Private,
}

impl Withdrawn {
    fn has(&self, file: FileId) -> bool {
        file.dev == self.dev && self.ino.is_none_or(|ino| ino == file.ino)
    }

    /// The addresses of `region` that show something of it.
    fn part_of(&self, region: &Region) -> Option<(u64, u64)> {
        let Backing::File { file, offset } = region.backing else {
            return None;
        };
        let end = offset + region.len();
        let (from, to) = (self.from.max(offset), self.to.min(end));
        (self.has(file) && from < to)
            .then(|| (region.start + (from - offset), region.start + (to - offset)))
    }
}

impl Space {
    /// Unmaps what is taken. What was written there and not told of is lost with the file's page.
    fn withdraw(&self, frames: &Frames, what: &Withdrawn) {
        for region in self.regions.as_slice() {
            let Some((start, end)) = what.part_of(region) else {
                continue;
            };
            if region.private() && what.private == Private::Stay {
                continue;
            }
            table::for_each(frames, self.top, start, end, |_, entry| {
                let frame = table::frame(entry);
                if frames.tag(frame) == 0 && what.private == Private::Follow {
                    return entry;
                }
                frames.release(frame);
                0
            });
        }
    }
}

impl Server {
    /// Takes pages from whoever maps them, and from the cache. The file system's own memory stays
    /// its own.
    pub(crate) fn withdraw(&mut self, what: Withdrawn) {
        let frames = self.pool.frames;
        let mut mapped = self.pool.files.iter();
        let left = self.pool.lab.sabotage & abi::sabotage::MAPPING_LEFT != 0;
        if !left && mapped.any(|(file, _)| what.has(file)) {
            for space in self.spaces() {
                space.withdraw(frames, &what);
            }
        }
        // Nobody is to be told of changes to what is gone, and who waits for a page that came and went
        // may ask again.
        let gone = |key: &Key| what.has(key.file) && (what.from..what.to).contains(&key.offset);
        self.page_ins.taken(gone);
        self.pool.written.retain(|key| !gone(key));
        match what.ino {
            None => self.pool.cache.forget_device(frames, what.dev),
            Some(ino) => {
                let dev = what.dev;
                let file = FileId { dev, ino };
                self.pool.cache.forget(frames, file, what.from, what.to);
            }
        }
    }

    /// [`CacheForget`].
    pub(crate) fn cache_forget(&mut self, _: Endpoint, r: CacheForget) -> Result<(), Errno> {
        if r.dev >= crate::files::SHARED_MEMORY {
            return Err(Errno::EINVAL);
        }
        let device = r.ino == u64::MAX;
        if r.end != u64::MAX && !r.end.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let from = abi::page_up(r.offset).ok_or(Errno::EINVAL)?;
        if r.end <= from {
            return Ok(());
        }
        self.withdraw(Withdrawn {
            dev: r.dev,
            ino: (!device).then_some(r.ino),
            from,
            to: r.end,
            private: match (device, r.end) {
                // Programs that run from a file system that is gone run on.
                (true, _) => Private::Stay,
                (false, u64::MAX) => Private::Go,
                (false, _) => Private::Follow,
            },
        });
        Ok(())
    }

    /// Before `key` gets another page: the one that has its name loses it.
    pub(crate) fn withdraw_page(&mut self, key: Key) {
        self.withdraw(Withdrawn {
            dev: key.file.dev,
            ino: Some(key.file.ino),
            from: key.offset,
            to: key.offset + PAGE,
            private: Private::Follow,
        });
    }
}
