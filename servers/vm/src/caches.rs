//! Memory that file systems cache files in ([`MapFlags::CACHE`]): they take what is free but for a little, and
//! are asked back what programs need. VFS passes the question on ([`vfs::GiveBack`]), and answers when all have given what they
//! can; until then whoever needs the memory waits, and neither a page that a program maps nor a process goes for it.
//!
//! [`MapFlags::CACHE`]: abi::proto::vm::MapFlags::CACHE

use crate::frames::Claim;
use crate::region::Flags;
use crate::server::{Effect, Server};
use crate::table;
use abi::errno::result_from_word;
use abi::message::Handled;
use abi::proto::vm::{Fork, Populate, Populated};
use abi::proto::{vfs, vm as protocol};
use abi::{Class, Endpoint, Errno, Message, PAGE, Request};
use alloc::vec::Vec;

/// What is known of caches.
#[derive(Default)]
pub(crate) struct Caches {
    /// There is one.
    any: bool,
    /// They were asked, and have not answered.
    asked: bool,
    /// They have nothing more to give, and have taken nothing since.
    empty: bool,
    /// Forks that wait for the answer.
    forks: Vec<(Endpoint, Message)>,
}

impl Server {
    /// A file system has an address range for a cache.
    pub(crate) fn add_cache(&mut self) {
        self.caches.any = true;
    }

    /// Whether caches may have memory to give back.
    pub(crate) fn caches_have_some(&self) -> bool {
        self.caches.any && !self.caches.empty
    }

    /// Asks caches for memory, unless they were; whether an answer is to come.
    pub(crate) fn ask_caches(&mut self) -> bool {
        if self.caches.asked {
            return true;
        }
        if !self.caches_have_some() {
            return false;
        }
        let frames = self.pool.frames;
        let (cache, programs) = (
            frames.kept_from(Claim::Cache),
            frames.kept_from(Claim::Program),
        );
        // As many as they leave to programs, and what programs have already taken of the services' share.
        let pages = cache - programs + programs.saturating_sub(frames.free());
        self.caches.asked = true;
        let pages = u64::from(pages);
        self.ask_server(Endpoint::VFS, vfs::GiveBack { pages });
        true
    }

    /// Caches have given back what they can: what waits goes on, or to others.
    pub(crate) fn gave_back(&mut self, pages: u64) {
        self.caches.asked = false;
        self.caches.empty = pages == 0;
        for (who, message) in core::mem::take(&mut self.caches.forks) {
            self.call_or_wait(who, &message);
        }
        self.feed();
    }

    /// A call. A fork that finds no memory waits for caches, as a program that touches memory does.
    pub(crate) fn call_or_wait(&mut self, who: Endpoint, message: &Message) -> Handled {
        let handled = protocol::serve(self, who, Class::Call, message);
        let Some(reply) = handled.answer else {
            return handled;
        };
        let waits = message.kind == Fork::KIND
            && result_from_word(reply.kind) == Err(Errno::ENOMEM)
            && self.caches.forks.try_reserve(1).is_ok()
            && self.ask_caches();
        if waits {
            self.caches.forks.push((who, *message));
        } else {
            self.effects.push(Effect::Reply(who, reply));
        }
        Handled {
            answer: None,
            ..handled
        }
    }

    /// [`Populate`].
    pub(crate) fn populate(&mut self, source: Endpoint, r: Populate) -> Result<Populated, Errno> {
        let end = self.anonymous(source, r.addr, r.len)?;
        let (space, pool) = self.space(source)?;
        let cache = space.regions.at(r.addr);
        let cache = cache.is_some_and(|region| region.flags.contains(Flags::CACHE));
        if cache && !r.needed {
            pool.frames.set_claim(Claim::Cache);
        }
        let all = space.populate(pool, r.addr, end, false);
        pool.frames.set_claim(Claim::Service);
        let pages = match all {
            Ok(()) => (end - r.addr) / PAGE,
            Err(_) => {
                let there = |&at: &u64| table::get(pool.frames, space.top, at) != 0;
                let pages = (r.addr..end).step_by(PAGE as usize);
                pages.take_while(there).count() as u64
            }
        };
        if cache && pages > 0 {
            self.caches.empty = false;
        }
        match pages {
            0 => Err(Errno::ENOMEM),
            pages => Ok(Populated { pages }),
        }
    }

    /// Pages that caches hold and VM's own cache has not as well.
    pub(crate) fn cached_elsewhere(&self) -> u64 {
        let frames = self.pool.frames;
        let mut pages = 0;
        for space in self.spaces_of(true) {
            let regions = space.regions.as_slice().iter();
            for region in regions.filter(|region| region.flags.contains(Flags::CACHE)) {
                table::for_each(frames, space.top, region.start, region.end, |_, entry| {
                    pages += u64::from(frames.tag(table::frame(entry)) == 0);
                    entry
                });
            }
        }
        pages
    }
}
