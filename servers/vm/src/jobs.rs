//! Making a range of memory usable, page by page, where single pages may have to come from
//! VFS: one resumable computation behind page faults, the kernel's memory requests, VFS's
//! handle-memory requests and Linux calls that populate.
//!
//! A [`Job`] holds copied state and endpoints, no references, so that whatever happens to the
//! processes while it waits is harmless: every step looks the process up again, and a dead
//! one is not found. Jobs that need the same page wait for one request.

use crate::cache::Key;
use crate::fault::{Access, Step, Trouble};
use crate::server::{Effect, Server};
use crate::shortage::VAIN;
use abi::kernel::{MemoryRequest, PageFault, USER_END};
use abi::message::Asker;
use abi::proto::vm::Present;
use abi::proto::{pm, rs, vfs};
use abi::{Endpoint, Errno, Message, PAGE, sabotage};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

/// Who wants the memory, and how to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A page fault of the process itself.
    Fault(PageFault),
    /// A copy of this process, parked by the kernel.
    Kernel(Endpoint),
    /// VFS.
    Vfs(Asker<Present>),
    /// A Linux call of the process.
    Linux(Then, Failed),
}

/// What a Linux call makes of memory that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It fails.
    Fails,
    /// It fails, with mlock(2)'s errors.
    FailsToLock,
    /// It goes on at the next mapping: what it promised is done already.
    GoesOn,
}

/// How a Linux call goes on once the memory is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// With this result.
    Return(u64),
    /// From the start.
    Again(Message),
}

/// Whether a page was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It was not.
    No,
    /// It came. Where it is gone, it went for lack of memory, or there is another by now: it is asked
    /// for again.
    Came,
    /// It did not come, or its file system took it again and again: it must not be asked for for ever.
    InVain,
}

/// A range being made usable.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Who wants it.
    pub origin: Origin,
    /// Whose memory.
    pub who: Endpoint,
    /// What was asked for: the first byte, and how many.
    pub range: (u64, u64),
    /// The next page.
    pub cursor: u64,
    /// The end of the range.
    pub end: u64,
    /// How it will be accessed.
    pub access: Access,
    /// Whether VFS may be asked: not when it could need the one who waits.
    pub may_ask: bool,
    /// Whether the page at the cursor was asked for.
    pub asked: Asked,
    /// How often it came and its file system took it again.
    pub taken: u32,
    /// How often it got no memory for this page although there were frames: what lacks is VM's own, or VFS's, or
    /// a file system's.
    pub vain: u32,
}

/// Jobs that wait for a page.
struct Waiting {
    jobs: Vec<Job>,
    /// Pages before and after it that were asked for, too.
    around: (u64, u64),
    /// It was put into the cache since.
    came: bool,
    /// It was taken from its file since.
    taken: bool,
}

/// Pages that VFS was asked for.
#[derive(Default)]
pub struct PageIns {
    waiting: BTreeMap<Key, Waiting>,
    keys: BTreeMap<u64, Key>,
}

impl PageIns {
    /// Notes that a page was put into the cache.
    pub(crate) fn came(&mut self, key: &Key) {
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.came = true;
        }
    }

    /// Notes that pages were taken from their files.
    pub(crate) fn taken(&mut self, gone: impl Fn(&Key) -> bool) {
        let gone = self.waiting.iter_mut().filter(|(key, _)| gone(key));
        gone.for_each(|(_, waiting)| waiting.taken = true);
    }

    /// Requests outstanding.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing is outstanding.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Job {
    /// Done with the page at the cursor.
    fn go_on_at(&mut self, next: u64) {
        self.cursor = next;
        (self.asked, self.taken, self.vain) = (Asked::No, 0, 0);
    }

    /// Bytes of the beginning of its range that are usable.
    fn good(&self) -> u64 {
        self.cursor.saturating_sub(self.range.0).min(self.range.1)
    }
}

/// How a job ended.
type Outcome = Result<(), Failure>;

pub(crate) enum Failure {
    /// The process is gone.
    Gone,
    /// The memory cannot be had.
    Trouble(Trouble),
}

impl Failure {
    fn errno(&self) -> Errno {
        match self {
            Failure::Gone => Errno::ESRCH,
            Failure::Trouble(Trouble::NoRegion | Trouble::Forbidden) => Errno::EFAULT,
            Failure::Trouble(Trouble::NoMemory) => Errno::ENOMEM,
            Failure::Trouble(Trouble::Unreadable(errno)) => *errno,
        }
    }
}

const SIGBUS: i32 = 7;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRERR: i32 = 2;
const SI_KERNEL: i32 = 0x80;

impl Server {
    /// A page fault.
    pub(crate) fn handle_fault(&mut self, source: Endpoint, message: &Message) {
        let fault = PageFault::of(message);
        let access = if fault.write() {
            Access::Write
        } else if fault.fetch() {
            Access::Execute
        } else {
            Access::Read
        };
        let page = abi::page_down(fault.address);
        self.run(Job {
            origin: Origin::Fault(fault),
            who: source,
            range: (page, PAGE),
            cursor: page,
            end: page.saturating_add(PAGE),
            access,
            may_ask: !self.process(source).is_some_and(|p| p.in_chain),
            asked: Asked::No,
            taken: 0,
            vain: 0,
        });
    }

    /// A copy parked by the kernel.
    pub fn handle_memory_request(&mut self, request: &MemoryRequest) {
        let requestor = Endpoint(request.requestor);
        let in_chain = self.process(requestor).is_none_or(|p| p.in_chain);
        self.handle_memory(
            Origin::Kernel(requestor),
            Endpoint(request.target),
            (request.address, request.len),
            match request.write {
                0 => Access::Read,
                _ => Access::Write,
            },
            request.soft == 0 && (!in_chain || self.deadlocks),
        );
        self.settle();
    }

    /// Makes `(address, len)` of `who` usable for `access`.
    pub(crate) fn handle_memory(
        &mut self,
        origin: Origin,
        who: Endpoint,
        (address, len): (u64, u64),
        access: Access,
        may_ask: bool,
    ) {
        let end = address.checked_add(len).filter(|&end| end <= USER_END);
        let mut job = Job {
            origin,
            who,
            range: (address, len),
            cursor: abi::page_down(address),
            end: 0,
            access,
            may_ask,
            asked: Asked::No,
            taken: 0,
            vain: 0,
        };
        match end.and_then(abi::page_up) {
            Some(_) if len == 0 => self.finish(job, Ok(())),
            Some(end) => {
                job.end = end;
                self.run(job);
            }
            None => self.finish(job, Err(Failure::Trouble(Trouble::NoRegion))),
        }
    }

    /// Goes on with a job until it ends or has to wait.
    pub(crate) fn run(&mut self, mut job: Job) {
        self.pool.frames.set_claim(self.claim_of(&job));
        let asks_again = self.pool.lab.sabotage & sabotage::ASKED_FOR_EVER != 0;
        while job.cursor < job.end {
            let Ok((space, pool)) = self.space(job.who) else {
                return self.finish(job, Err(Failure::Gone));
            };
            match space.access(pool, job.cursor, job.access) {
                Step::Ready => {
                    job.go_on_at(job.cursor + PAGE);
                }
                Step::Evicted => self.complete_eviction(job.who, job.cursor),
                Step::Later => {
                    self.later.push(job);
                    return self.effects.push(Effect::TryLater);
                }
                Step::Fail(Trouble::NoMemory) if self.can_starve(&job) => {
                    if self.caches_have_some() || !self.reclaim() {
                        return self.starve(job);
                    }
                    // Its own page may be what went. It comes again; when that does not help somebody else has to make room.
                    if job.asked != Asked::No {
                        job.asked = Asked::No;
                        job.vain += 1;
                        if job.vain > VAIN {
                            job.vain = 0;
                            return self.starve(job);
                        }
                    }
                }
                // A copy that does not wait: as if the page were merely absent.
                Step::Fail(Trouble::NoMemory)
                    if !job.may_ask && matches!(job.origin, Origin::Kernel(_)) =>
                {
                    let trouble = Trouble::Unreadable(Errno::EFAULT);
                    return self.finish(job, Err(Failure::Trouble(trouble)));
                }
                Step::Fail(trouble) => match self.beyond(&job, trouble) {
                    Some(next) => job.go_on_at(next),
                    None => return self.finish(job, Err(Failure::Trouble(trouble))),
                },
                Step::Ask(_) if !job.may_ask || (job.asked == Asked::InVain && !asks_again) => {
                    let trouble = Trouble::Unreadable(Errno::EFAULT);
                    match self.beyond(&job, trouble) {
                        Some(next) => job.go_on_at(next),
                        None => return self.finish(job, Err(Failure::Trouble(trouble))),
                    }
                }
                // It came, and went for lack of memory.
                Step::Ask(_)
                    if job.asked == Asked::Came && !self.has_frames() && self.can_starve(&job) =>
                {
                    return self.starve(job);
                }
                Step::Ask(key) => return self.ask(key, job),
            }
        }
        self.finish(job, Ok(()));
    }

    /// Has VFS bring a page in; the job waits.
    fn ask(&mut self, key: Key, job: Job) {
        if let Some(waiting) = self.page_ins.waiting.get_mut(&key) {
            waiting.jobs.push(job);
            return;
        }
        let txn = self.new_txn();
        let around = self.pages_around(&job, key);
        let jobs = alloc::vec![job];
        let waiting = Waiting {
            jobs,
            around,
            came: false,
            taken: false,
        };
        self.page_ins.waiting.insert(key, waiting);
        self.page_ins.keys.insert(txn, key);
        let request = vfs::PageIn {
            dev: key.file.dev,
            ino: key.file.ino,
            offset: key.offset,
            before: around.0,
            after: around.1,
        };
        self.ask_as(Endpoint::VFS, txn, request);
    }

    /// VFS answered.
    pub(crate) fn page_in_done(&mut self, txn: u64, status: Result<(), Errno>) {
        // An answer nobody waits for is left over from a VFS that was restarted.
        let Some(key) = self.page_ins.keys.remove(&txn) else {
            return;
        };
        let Some(waiting) = self.page_ins.waiting.remove(&key) else {
            return;
        };
        let Waiting {
            jobs,
            around,
            came,
            taken,
        } = waiting;
        for mut job in jobs {
            // When it was taken, again: behind a new end of the file the answer says so, in a hole there
            // is another page.
            job.taken += u32::from(taken);
            job.asked = match came && job.taken <= VAIN {
                true => Asked::Came,
                false => Asked::InVain,
            };
            match status {
                Ok(()) => {
                    self.enter_around(&job, key, around);
                    self.run(job);
                }
                // As where VM itself has none: whoever can wait does.
                Err(Errno::ENOMEM) if self.can_starve(&job) => self.starve(job),
                Err(errno) => {
                    let trouble = match errno {
                        Errno::ENOMEM => Trouble::NoMemory,
                        errno => Trouble::Unreadable(errno),
                    };
                    match self.beyond(&job, trouble) {
                        Some(next) => job.go_on_at(next),
                        None => {
                            self.finish(job, Err(Failure::Trouble(trouble)));
                            continue;
                        }
                    }
                    self.run(job);
                }
            }
        }
    }

    /// Where a job goes on that does not mind what it cannot have: at the next mapping, or at its end.
    fn beyond(&mut self, job: &Job, trouble: Trouble) -> Option<u64> {
        let goes_on = matches!(job.origin, Origin::Linux(_, Failed::GoesOn));
        if !goes_on || trouble == Trouble::NoMemory {
            return None;
        }
        let (space, _) = self.space(job.who).ok()?;
        let mut rest = space.regions.overlapping(job.cursor, job.end).iter();
        let next = rest.find(|region| region.start > job.cursor);
        Some(next.map_or(job.end, |region| region.start))
    }

    /// Time has passed: what had to wait for it goes on.
    pub fn try_again(&mut self) {
        for job in core::mem::take(&mut self.later) {
            self.run(job);
        }
        self.settle();
    }

    /// A process died: nothing of its memory is wanted any more, and it wants nothing.
    pub(crate) fn cancel_jobs(&mut self, who: Endpoint) {
        let mut cancelled = Vec::new();
        let waiting = self.page_ins.waiting.values_mut().map(|it| &mut it.jobs);
        for jobs in waiting.chain([&mut self.later, &mut self.shortage.starved]) {
            jobs.retain(|job| {
                if job.origin == Origin::Kernel(who) {
                    return false;
                }
                if job.who == who {
                    cancelled.push(*job);
                }
                job.who != who
            });
        }
        for job in cancelled {
            self.finish(job, Err(Failure::Gone));
        }
    }

    pub(crate) fn finish(&mut self, job: Job, outcome: Outcome) {
        match job.origin {
            Origin::Fault(fault) => self.finish_fault(job.who, fault, outcome),
            Origin::Kernel(requestor) => {
                let result = outcome.map_err(|failure| failure.errno());
                self.effects.push(Effect::MemoryReply(requestor, result));
            }
            Origin::Vfs(vfs) => {
                let status = outcome.map_err(|failure| failure.errno());
                let unsaid = self.pool.lab.sabotage & sabotage::GOOD_UNSAID != 0;
                let good = if unsaid { 0 } else { job.good() };
                // Who asked for a range may do with its beginning.
                let present = match status {
                    Err(errno) if good == 0 => Err(errno),
                    status => Ok(Present { good, status }),
                };
                self.answer(vfs, present);
            }
            Origin::Linux(then, failed) => match (outcome, failed) {
                (Err(Failure::Gone), _) => {}
                (Err(failure), Failed::Fails) => {
                    self.reply_status(job.who, Err(failure.errno()));
                }
                (Err(failure), Failed::FailsToLock) => {
                    let errno = crate::locked::error_of_filling(failure.errno());
                    self.reply_status(job.who, Err(errno));
                }
                _ => match then {
                    Then::Return(value) => self.reply_status(job.who, Ok(value)),
                    Then::Again(message) => self.handle_linux(job.who, &message),
                },
            },
        }
    }

    fn finish_fault(&mut self, who: Endpoint, fault: PageFault, outcome: Outcome) {
        let trouble = match outcome {
            Ok(()) => return self.reply_status(who, Ok(0)),
            // A process without a space cannot have faulted and live: the reply, if it does,
            // leaves it stopped.
            Err(Failure::Gone) => return self.reply_status(who, Err(Errno::ESRCH)),
            Err(Failure::Trouble(trouble)) => trouble,
        };
        let (signal, code) = match trouble {
            Trouble::NoRegion => (SIGSEGV, SEGV_MAPERR),
            Trouble::Forbidden => (SIGSEGV, SEGV_ACCERR),
            Trouble::Unreadable(_) => (SIGBUS, BUS_ADRERR),
            Trouble::NoMemory => (SIGKILL, SI_KERNEL),
        };
        self.reply_status(who, Err(Errno::EFAULT));
        let service = self.process(who).is_some_and(|p| p.service);
        if service {
            self.effects.push(Effect::Log(format!(
                "process {who}: {trouble:?} at {:#x} (code {:#x}), rip {:#x}",
                fault.address, fault.code, fault.rip
            )));
        }
        if service {
            let PageFault { address, code, rip } = fault;
            // Nobody hears of their own end.
            if who == Endpoint::RS {
                self.post(Endpoint::PM, pm::WatcherFaulted { address, rip });
                return;
            }
            let request = rs::Faulted {
                who,
                address,
                code,
                rip,
            };
            self.post(Endpoint::RS, request);
        } else {
            let request = pm::FaultSignal {
                who,
                signal,
                code,
                addr: fault.address,
                error: fault.code,
            };
            self.post(Endpoint::PM, request);
        }
    }
}
