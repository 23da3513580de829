//! What happens when time has come.

use crate::clock;
use crate::counters::{COUNTERS, add};
use crate::fatal;
use crate::global::Global;
use crate::lab;
use crate::notice::notice_process;
use crate::process;
use abi::kernel::KernelNotify;
use abi::trace;

/// When the machine ends in any case, ns since boot; 0 while VM and RS live.
static END: Global<u64> = Global::new(0);
/// How long PM or RS may take: longer than they wait for file systems.
const END_LIMIT_NS: u64 = 15_000_000_000;

/// VM or RS has died: somebody is about to save what can be saved and to end the machine. Without
/// them that may come to nothing, so there is a limit.
#[cold]
pub fn expect_end() {
    if END.get() == 0 {
        END.set(clock::now() + END_LIMIT_NS);
        clock::arm(END.get());
    }
}

/// Fires the processes' timers that are due and arms the next. Turns end in `choose`.
pub fn fire() {
    clock::fired();
    let now = clock::now();
    let mut next = u64::MAX;
    if END.get() != 0 {
        if END.get() <= now {
            fatal!("VM or RS died and nobody ended the machine");
        }
        next = END.get();
    }
    for process in process::living().filter(|process| process.deadline.get() != 0) {
        if process.deadline.get() <= now {
            process.deadline.set(0);
            notice_process(process, KernelNotify::TIMER);
        } else {
            next = next.min(process.deadline.get());
        }
    }
    if next != u64::MAX {
        clock::arm(next);
    }
}

/// Nobody can run, and time is virtual: it goes on to the next timer.
pub fn skip() {
    match clock::skip() {
        Some(ns) => {
            add(&COUNTERS.idle_ns, ns);
            lab::note(|| trace::Idle { ns });
            fire();
        }
        None => lab::stuck(),
    }
}
