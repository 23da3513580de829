//! What happens when memory is used up: programs that need some wait, and PM, which knows users,
//! ends the process that is to make room.
//!
//! [`Claim`] says who may take how many of the last frames. A program's page fault, and what VFS
//! wants to reach of a program, waits in `Server::starved` until there is memory; a service
//! that the kernel has stopped for a copy cannot wait for PM, which may be that service, and
//! takes from what programs leave to services. PM asks [`Server::footprint`] of each process,
//! chooses, kills, and answers.
//!
//! Why so: docs/decisions/012-memory-runs-out.md.

use crate::fault::Trouble;
use crate::frames::Claim;
use crate::jobs::{Asked, Failed, Failure, Job, Origin, Then};
use crate::server::{Effect, Server};
use crate::space::Space;
use crate::table::{self, FOREIGN};
use abi::kernel::USER_END;
use abi::proto::pm::OutOfMemory;
use abi::proto::vm::{Footprint, FootprintFigures};
use abi::{Endpoint, Errno, Message, PAGE};
use alloc::format;
use alloc::vec::Vec;

/// How often a page is tried for that does not come although there are frames: one refusal may be chance. Then caches
/// give way, and then a process, as where there are none: what each of them has notes are kept of.
pub(crate) const VAIN: u32 = 4;

/// Jobs that wait for memory, and what PM was asked.
#[derive(Default)]
pub(crate) struct Shortage {
    /// Jobs that wait for memory.
    pub starved: Vec<Job>,
    /// For whom PM is choosing just now; `NONE` is nobody who waits.
    asked: Option<Endpoint>,
    /// How often in this shortage all clean file pages that programs map have gone ([`crate::reclaim`]).
    pub reclaims: u32,
    /// PM found nobody whose end would help services: not asked again before memory has come free.
    hopeless: bool,
}

impl Server {
    /// For whom frames are taken by a job.
    pub(crate) fn claim_of(&self, job: &Job) -> Claim {
        let service = self.process(job.who).is_some_and(|p| p.service);
        let stopped = matches!(job.origin, Origin::Kernel(_)) && job.may_ask;
        if service || stopped {
            Claim::Service
        } else {
            Claim::Program
        }
    }

    /// Whether a job that got no memory can wait for some.
    pub(crate) fn can_starve(&self, job: &Job) -> bool {
        let again = matches!(
            job.origin,
            Origin::Linux(_, Failed::Fails | Failed::FailsToLock)
        );
        self.claim_of(job) == Claim::Program
            && (again || matches!(job.origin, Origin::Fault(_) | Origin::Vfs(_)))
    }

    /// The job waits for memory: for what comes free with this message, or for PM's choice.
    pub(crate) fn starve(&mut self, mut job: Job) {
        job.vain += u32::from(self.has_frames());
        // The page that came for it may be gone when there is memory to map it.
        job.asked = Asked::No;
        self.shortage.starved.push(job);
    }

    /// Whether there are frames for programs that wait.
    pub(crate) fn has_frames(&self) -> bool {
        let frames = self.pool.frames;
        frames.free() >= frames.kept_from(Claim::Program) + 64
    }

    /// A Linux call that makes VM keep something waits while memory is short; whether it does.
    pub(crate) fn starve_call(&mut self, who: Endpoint, message: &Message) -> bool {
        if !self.is_short() {
            return false;
        }
        self.starve(Job {
            origin: Origin::Linux(Then::Again(*message), Failed::Fails),
            who,
            range: (0, 0),
            cursor: 0,
            end: 0,
            access: crate::fault::Access::Read,
            may_ask: true,
            asked: Asked::No,
            taken: 0,
            vain: 0,
        });
        true
    }

    fn ask_for_memory(&mut self, who: Endpoint) {
        self.shortage.asked = Some(who);
        self.ask_server(Endpoint::PM, OutOfMemory { who });
    }

    /// After each message: who waits goes on when there is memory again, and programs make room
    /// when services have used up too much of what they leave to them.
    pub(crate) fn settle_shortage(&mut self) {
        if self.has_frames() {
            self.shortage.hopeless = false;
            self.shortage.reclaims = 0;
            self.feed_but(VAIN);
        }
        let frames = self.pool.frames;
        let short = !self.shortage.starved.is_empty() || frames.wants_cache_back();
        if (short && self.ask_caches()) || self.shortage.asked.is_some() {
            return;
        }
        if let Some(first) = self.shortage.starved.first() {
            self.ask_for_memory(first.who);
        } else if !self.shortage.hopeless && self.is_short() {
            self.ask_for_memory(Endpoint::NONE);
        }
    }

    /// Tries again what waits for memory.
    pub(crate) fn feed(&mut self) {
        self.feed_but(u32::MAX);
    }

    /// Tries again what waits for memory and did not so often in vain.
    fn feed_but(&mut self, vain: u32) {
        for job in core::mem::take(&mut self.shortage.starved) {
            match job.vain < vain {
                true => self.run(job),
                false => self.shortage.starved.push(job),
            }
        }
    }

    /// [`Footprint`].
    pub(crate) fn footprint_of(&mut self, r: Footprint) -> Result<FootprintFigures, Errno> {
        let total = self.pool.frames.total() as u64 * PAGE;
        let bytes = self.footprint(r.who)?;
        Ok(FootprintFigures { bytes, total })
    }

    fn footprint(&mut self, who: Endpoint) -> Result<u64, Errno> {
        let (space, pool) = self.space(who)?;
        Ok(footprint(pool, space))
    }

    /// PM has chosen.
    pub(crate) fn out_of_memory_done(&mut self, killed: u64) {
        let Some(asked) = self.shortage.asked.take() else {
            return;
        };
        if killed != 0 {
            self.shortage.reclaims = 0;
            return self.feed();
        }
        if asked == Endpoint::NONE {
            // Nobody who waits was spoken of: for whoever does PM is asked again.
            self.shortage.hopeless = true;
            return;
        }
        // Nobody may be ended: who waits cannot go on.
        let waiting = core::mem::take(&mut self.shortage.starved);
        for job in waiting {
            self.effects.push(Effect::Log(format!(
                "process {}: no memory, and nobody who may be ended for it",
                job.who
            )));
            self.finish(job, Err(Failure::Trouble(Trouble::NoMemory)));
        }
    }
}

/// Bytes that come free when the space goes: its part of every page that is not only cached,
/// page tables, and VM's notes.
fn footprint(pool: &crate::pool::Pool, space: &Space) -> u64 {
    let frames = pool.frames;
    let mut bytes = size_of_val(space.regions.as_slice()) as u64;
    table::for_each_table(frames, space.top, &mut |_, _| bytes += PAGE);
    table::for_each(frames, space.top, 0, USER_END, |_, entry| {
        let frame = table::frame(entry);
        if entry & FOREIGN == 0 {
            let users = frames.refs(frame).max(1) as u64;
            let key = pool.cache.key_of(frames, frame);
            match key {
                None => bytes += PAGE / users,
                // The cache's own reference does not count.
                Some(key) if key.file.is_memory() => bytes += PAGE / (users - 1).max(1),
                Some(_) => {}
            }
        }
        entry
    });
    bytes
}
