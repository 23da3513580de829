//! The laboratory inside the kernel: fault points, the trace, decisions ([`abi::trace`]).
//! Off it costs a load and a branch at each place. On it changes nothing that the VMM does not
//! ask for.

use crate::arch::layout::KERNEL_BASE;
use crate::arch::{guard, machine};
use crate::clock;
use crate::copy;
use crate::counters::COUNTERS;
use crate::global::{Global, Single};
use crate::log::say;
use crate::process::{self, Process};
use abi::boot::TRACE_RECORDS;
use abi::lab::{POWEROFF_STUCK, RECORD_LINE, STUCK_LINE, TRACE_LINE};
use abi::trace::{
    self, CHOICES, Control, Decision, Event, Kind, Mode, RECORD_WORDS, RING, Record, Refusal,
    Restored, Sent, Told, WITHDRAWN_COMES, Wanted, mix, random,
};
use abi::{Class, Endpoint, Message};
use core::cell::UnsafeCell;

/// Shared with the VMM, which writes it while the vCPU is stopped: every look is a fresh one.
static CONTROL: Single<UnsafeCell<Control>> = Single::of(UnsafeCell::new(Control::OFF));
static TRACE: Global<[Record; RING]> = Global::new(
    [Record {
        time: 0,
        what: 0,
        words: [0; RECORD_WORDS],
    }; RING],
);
type Words = [u64; RECORD_WORDS];
/// Carries out what is planned for the point of this number, where there is no VMM.
pub type Planner = fn(u64, &Record);
static PLANNER: Global<Option<Planner>> = Global::new(None);
static ON: Global<bool> = Global::new(false);
/// [`ON`], or time is virtual.
static PRESENT: Global<bool> = Global::new(false);
/// Records are logged, where no VMM reads them.
static TOLD: Global<bool> = Global::new(false);
/// Servers' allocations are points.
static ALLOCATIONS: Global<bool> = Global::new(false);
static MODE: Global<u64> = Global::new(Mode::First as u64);
static SABOTAGE: Global<u64> = Global::new(0);
/// Moments at which [`Mode::Priorities`] changes a priority: one decision in this many.
const CHANGE_EVERY: u64 = 64;
/// How often each slot's priority has changed ([`Mode::Priorities`]).
static CHANGED: Global<[u8; process::MAX_PROCESSES]> = Global::new([0; process::MAX_PROCESSES]);

fn control() -> *mut Control {
    CONTROL.get()
}

/// Has this called at each point that is asked for, where there is no VMM.
pub fn set_planner(planner: Planner) {
    PLANNER.set(Some(planner));
}

macro_rules! field {
    ($name:ident) => {
        // SAFETY: CONTROL is static; single thread of control; plain integers.
        unsafe { (&raw const (*control()).$name).read_volatile() }
    };
    ($name:ident = $value:expr) => {
        // SAFETY: as above.
        unsafe { (&raw mut (*control()).$name).write_volatile($value) }
    };
}

/// Announces the laboratory to the VMM, which may turn it on; without a VMM the kernel command
/// line does (`trace`: to hash what happens, and how much to say of it). `allocations`: those of
/// servers are points.
pub fn init(trace: Option<&[u8]>, sabotage: u64, allocations: bool) {
    field!(ring = TRACE.as_ptr() as u64 - KERNEL_BASE);
    field!(guarded = guard::range());
    field!(on = trace.is_some() as u64);
    TOLD.set(trace == Some(TRACE_RECORDS.as_bytes()) && !machine::has_lab());
    field!(sabotage = sabotage);
    machine::announce_control(control() as u64 - KERNEL_BASE);
    ON.set(field!(on) != 0);
    ALLOCATIONS.set(on() && allocations);
    PRESENT.set(on() || clock::is_virtual());
    MODE.set(field!(mode));
    SABOTAGE.set(field!(sabotage) | sabotage);
}

/// Whether anything is recorded.
#[inline(always)]
pub fn on() -> bool {
    ON.get()
}

/// Whether leaving the kernel is anything but plain scheduling.
#[inline(always)]
pub fn present() -> bool {
    PRESENT.get()
}

/// Whether a deliberate defect is switched on.
#[inline(always)]
pub fn sabotaged(defect: u64) -> bool {
    SABOTAGE.get() & defect != 0
}

/// All of them.
pub fn sabotage() -> u64 {
    SABOTAGE.get()
}

/// Physical address of the shared structure, for VM.
pub fn physical() -> u64 {
    if on() {
        control() as u64 - KERNEL_BASE
    } else {
        0
    }
}

/// Something happened. `what` is called only when it is recorded.
#[inline(always)]
pub fn note<T: Told>(what: impl FnOnce() -> T) {
    if ON.get() {
        write(T::KIND, what().words());
    }
}

#[cold]
#[inline(never)]
fn write(kind: Kind, words: Words) {
    serving(&Record {
        what: kind as u64,
        words,
        ..Record::default()
    });
    put(kind, words);
}

/// What the server that is about to do something was last said to do.
static SERVING: Global<Words> = Global::new([0; RECORD_WORDS]);

/// Records what the acting server does and for whom, when that is news.
fn serving(record: &Record) {
    let who = match record.event() {
        Some(Event::Message(message)) => message.sent.ends.0,
        // Who faults does it for nobody.
        Some(Event::Fault(_)) | None => return,
        Some(event) => match event.actor() {
            Some(who) => who,
            None => return,
        },
    };
    let Ok(server) = process::find(who) else {
        return;
    };
    if server.serving.get() == 0 {
        return;
    }
    // Where it cannot be read nothing is said.
    if let Ok([a, b, c, d, e]) =
        copy::read_struct::<[u64; 5]>(server.cr3.get(), server.serving.get())
    {
        let said = [who.0 as u64, a, b, c, d, e];
        if said != SERVING.get() {
            SERVING.set(said);
            put(Kind::Serves, said);
        }
    }
}

/// Whether the laboratory wants to know of allocations.
pub fn watches_allocations() -> bool {
    ALLOCATIONS.get()
}

/// [`abi::kernel::Kcall::LabAllocation`].
#[cold]
#[inline(never)]
pub fn allocation(caller: &Process, wanted: Wanted, bytes: u64) -> Refusal {
    if !ALLOCATIONS.get() {
        return Refusal::No;
    }
    note(|| trace::Allocation {
        who: caller.endpoint.get(),
        wanted,
        len: bytes,
    });
    // Whoever was asked at the point has said it by now.
    let refusal = field!(refuse);
    field!(refuse = Refusal::No as u64);
    Refusal::of(refusal)
}

/// The allocation at whose point the kernel stands is refused.
pub fn refuse(how: Refusal) {
    field!(refuse = how as u64);
}

fn put(kind: Kind, words: Words) {
    let number = if kind.is_point() {
        let number = field!(points);
        field!(points = number + 1);
        number
    } else if kind == Kind::Choice {
        field!(decisions) - 1
    } else {
        0
    };
    let record = Record {
        time: clock::now(),
        what: kind as u64 | number << 8,
        words,
    };
    let records = field!(records);
    TRACE.put(records as usize % RING, record);
    field!(records = records + 1);
    let hash = field!(hash);
    field!(hash = mix(hash, &record));
    if (records + 1).is_multiple_of(RING as u64) {
        machine::trace_full();
    }
    if TOLD.get() {
        let [a, b, c, d, e, f] = words;
        let (time, what) = (record.time, record.what);
        say(format_args!(
            "{RECORD_LINE} {time:x} {what:x} {a:x} {b:x} {c:x} {d:x} {e:x} {f:x}"
        ));
    }
    if kind.is_point() && number == field!(ask) {
        match machine::has_lab() {
            true => machine::point(number),
            false => PLANNER
                .get()
                .into_iter()
                .for_each(|plan| plan(number, &record)),
        }
    }
}

/// The next point to stop at ([`abi::trace::NEVER`]).
pub fn ask(number: u64) {
    field!(ask = number);
}

/// The records that the ring still has, without the newest.
pub fn before() -> impl DoubleEndedIterator<Item = Record> {
    let records = field!(records);
    let first = records.saturating_sub(RING as u64);
    (first..records.saturating_sub(1)).map(|number| TRACE.at(number as usize % RING))
}

/// Gives a withdrawn frame back; the VMM decides whether it really does.
pub fn restore(physical: u64) {
    field!(time = clock::now());
    machine::restore(physical);
}

/// What [`abi::kernel::Kcall::FrameRestore`] says of a frame.
pub fn restored(physical: u64) -> Restored {
    let count = field!(withdrawn_count);
    let frames = field!(withdrawn);
    let mut listed = frames.iter().take(count as usize);
    match listed.find(|&&at| at & !WITHDRAWN_COMES == physical) {
        None => Restored::There,
        Some(at) if at & WITHDRAWN_COMES != 0 => Restored::Later,
        Some(_) => Restored::Away,
    }
}

/// A process is born or changes its name.
pub fn named(process: &Process) {
    note(|| trace::Process {
        who: process.endpoint.get(),
        name: process.name.get(),
        linux: process.linux(),
    });
}

/// A message, before it is delivered or queued. With VM at one end it is a point.
#[inline(always)]
pub fn message(from: Endpoint, to: Endpoint, class: Class, message: impl FnOnce() -> Message) {
    if ON.get() {
        let vm = from == Endpoint::VM || to == Endpoint::VM;
        let point = vm && matches!(class, Class::Call | Class::Post);
        let sent = Sent::new(class, (from, to), &message());
        match point {
            true => write(Kind::Request, trace::Request { sent }.words()),
            false => write(Kind::Message, trace::Message { sent }.words()),
        }
    }
}

/// A call is answered.
#[inline(always)]
pub fn reply(server: Endpoint, client: &Process, message: &Message) {
    note(|| trace::Reply {
        sent: Sent::new(client.class.get(), (server, client.endpoint.get()), message),
    });
}

/// Whether the order of things is decided here and not by priority and age.
#[inline(always)]
pub fn deciding() -> bool {
    MODE.get() != Mode::First as u64
}

/// Decides among `count` candidates: an index below it. `who` names a candidate.
pub fn decide(about: Decision, count: usize, who: impl Fn(usize) -> Endpoint) -> usize {
    if count < 2 {
        return 0;
    }
    let number = field!(decisions);
    field!(decisions = number + 1);
    let (seed, [start, end]) = (field!(seed), field!(window));
    let inside = start <= number && number < end;
    let choice = match field!(mode) {
        mode if mode == Mode::List as u64 => listed(number),
        _ if !inside => 0,
        mode if mode == Mode::Random as u64 => (random(seed, number) % count as u64) as usize,
        _ => by_priority(seed, number, count, &who),
    }
    .min(count - 1);
    note(|| trace::Choice {
        chosen: who(choice),
        choices: count as u64,
        choice: choice as u64,
        about,
    });
    choice
}

/// The candidate of the highest random priority. Now and then the chosen one's changes.
fn by_priority(seed: u64, number: u64, count: usize, who: &impl Fn(usize) -> Endpoint) -> usize {
    let slot = |i: usize| who(i).slot() % process::MAX_PROCESSES;
    let weight = |i: usize| random(seed, slot(i) as u64 | (CHANGED.at(slot(i)) as u64) << 32);
    let best = (0..count).max_by_key(|&i| weight(i)).unwrap_or(0);
    if random(!seed, number).is_multiple_of(CHANGE_EVERY) {
        let slot = slot(best);
        CHANGED.put(slot, CHANGED.at(slot).wrapping_add(1));
    }
    best
}

/// What the list says of this decision: the first where it says nothing.
fn listed(number: u64) -> usize {
    let count = (field!(choice_count) as usize).min(CHOICES);
    // SAFETY: as in `field`; the index is in range.
    let choice = |i: usize| unsafe { (&raw const (*control()).choices[i]).read_volatile() };
    (0..count)
        .map(choice)
        .find(|&choice| choice as u32 as u64 == number)
        .map_or(0, |choice| (choice >> 32) as usize)
}

/// Ends the machine; says what the trace was where nobody else can.
pub fn power_off(status: u64) -> ! {
    if on() && !machine::has_lab() {
        let (records, hash) = (field!(records), field!(hash));
        say(format_args!(
            "{TRACE_LINE} {records} records, hash {hash:016x}"
        ));
    }
    machine::power_off(status)
}

/// Nobody can run, no timer is set, and time is not real: nothing will ever happen.
pub fn stuck() {
    if !machine::stuck() {
        say(format_args!("{STUCK_LINE}"));
        power_off(POWEROFF_STUCK);
    }
}

/// The ready processes, best first, for a decision about who runs.
pub fn choose_process() -> Option<&'static Process> {
    let ready = || process::all().filter(|p| p.flags.get() == 0);
    let best = ready().map(|p| p.priority.get()).min()?;
    let count = ready().count();
    // By priority, then by slot: the order in which `nth` counts.
    let nth = |n: usize| {
        let mut left = n;
        for priority in best..process::PRIORITIES as u8 {
            for process in ready().filter(|p| p.priority.get() == priority) {
                if left == 0 {
                    return Some(process);
                }
                left -= 1;
            }
        }
        None
    };
    let choice = decide(Decision::Process, count, |n| {
        nth(n).map_or(Endpoint::NONE, |p| p.endpoint.get())
    });
    nth(choice)
}

/// Tells the laboratory who runs now, and who did.
#[inline(always)]
pub fn switched(before: &Process, after: &Process) {
    note(|| {
        let before = match core::ptr::eq(before, process::nobody()) {
            true => Endpoint::NONE,
            false => before.endpoint.get(),
        };
        trace::Switch {
            ends: (before, after.endpoint.get()),
            visits: COUNTERS.visits.get(),
        }
    });
}
