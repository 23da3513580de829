//! What all address spaces draw from: frames, the page cache, the mapped files.

use crate::cache::{Cache, Key};
use crate::files::Files;
use crate::frames::Frames;
use crate::lab::Lab;
use crate::region::{REGIONS_MAX, regions_of_machine};
use crate::table::{self, NoMemory};
use crate::window::{Frame, Window};
use abi::PAGE;
use alloc::vec::Vec;
use rt::charge::Account;

/// How many cached pages are dropped at once when memory is short.
const EVICT: usize = 64;

/// See the module.
pub struct Pool {
    /// The frames.
    pub frames: &'static Frames,
    /// The page cache.
    pub cache: Cache,
    /// The mapped files.
    pub files: Files,
    /// File pages that shared mappings have changed and nobody was told of.
    pub written: Vec<Key>,
    /// From here on the cache has changed pages that there was no memory to note.
    pub untold: Option<Key>,
    /// The most regions of a space (vm/max_map_count).
    pub map_max: usize,
    /// Regions of all spaces.
    pub regions: Account,
    /// What may be missing behind VM's back.
    pub lab: Lab,
}

impl Pool {
    /// A pool over all of `frames`.
    pub fn new(frames: &'static Frames) -> Pool {
        let memory = u64::from(frames.total()) * PAGE;
        Pool {
            frames,
            cache: Cache::default(),
            files: Files::default(),
            written: Vec::new(),
            untold: None,
            map_max: REGIONS_MAX,
            regions: Account::new(regions_of_machine(memory)),
            lab: Lab::default(),
        }
    }

    /// Physical memory.
    #[inline(always)]
    pub const fn window(&self) -> &'static Window {
        self.frames.window()
    }

    /// A frame, contents undefined.
    #[inline]
    pub fn take(&mut self) -> Result<Frame, NoMemory> {
        // What is only cached goes before services use what programs leave to them.
        if self.frames.low() {
            self.evict();
        }
        match self.frames.take() {
            Some(frame) => Ok(frame),
            None => self.take_evicting(),
        }
    }

    #[cold]
    fn take_evicting(&mut self) -> Result<Frame, NoMemory> {
        self.evict();
        self.frames.take_again().ok_or(NoMemory)
    }

    /// Makes room for page tables, which cannot evict themselves: at least three levels.
    #[inline]
    pub fn make_room(&mut self) -> Result<(), NoMemory> {
        if self.frames.spare() > 4 {
            return Ok(());
        }
        self.evict();
        if self.frames.spare() > 4 {
            Ok(())
        } else {
            Err(NoMemory)
        }
    }

    /// Whether memory stays low ([`Frames::low`]) although nothing is left that is only cached.
    pub fn exhausted(&mut self) -> bool {
        self.frames.low() && {
            self.evict();
            self.frames.low()
        }
    }

    /// Puts a page into the cache, which takes a reference on the frame.
    pub fn cache_insert(&mut self, key: Key, frame: Frame) -> Result<(), NoMemory> {
        if self.cache.reserve().is_err() {
            self.evict();
            self.cache.reserve()?;
        }
        self.cache.insert(self.frames, key, frame);
        Ok(())
    }

    #[cold]
    fn evict(&mut self) {
        self.cache.evict(self.frames, EVICT);
    }

    /// A zeroed frame.
    #[inline]
    pub fn take_zeroed(&mut self) -> Result<Frame, NoMemory> {
        let frame = self.take()?;
        self.window().zero(frame);
        Ok(frame)
    }

    /// A frame with the contents of `original`.
    pub fn take_copy(&mut self, original: Frame) -> Result<Frame, NoMemory> {
        // Eviction must not take the page that is about to be copied.
        self.frames.share(original);
        let copy = self.take();
        if let Ok(copy) = copy {
            self.window().copy(original, copy);
        }
        self.frames.release(original);
        copy
    }

    /// Notes that a page was changed, if this entry says so of a shared file page.
    #[inline(always)]
    pub fn note_written(&mut self, entry: u64) {
        // Not the right to write, which can be taken from a page that was changed before.
        // A file system knows what it writes itself.
        if entry & (table::DIRTY | table::FOREIGN | table::OWNER) == table::DIRTY {
            self.note_changed(entry);
        }
    }

    fn note_changed(&mut self, entry: u64) {
        let frame = table::frame(entry);
        let key = self.cache.key_of(self.frames, frame);
        if let Some(key) = key.filter(|key| !key.file.is_memory()) {
            self.cache.set_dirty(self.frames, frame);
            match self.written.try_reserve(1) {
                Ok(()) => self.written.push(key),
                // The cache knows.
                Err(_) => self.untold = Some(Key::FIRST),
            }
        }
    }

    /// `count` zeroed frames in a row.
    pub fn take_run(&mut self, count: u32) -> Result<Frame, NoMemory> {
        let mut first = self.frames.take_run(count);
        while first.is_none() && self.cache.evict(self.frames, EVICT.max(count as usize)) > 0 {
            first = self.frames.take_run_again(count);
        }
        let first = first.ok_or(NoMemory)?;
        for n in 0..count {
            self.window().zero(Frame(first.0 + n));
        }
        Ok(first)
    }
}
