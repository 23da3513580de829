//! What is done on the ways out of a process that no `drop` sees: panics (which end it, in whatever thread) and fatal
//! signals. The terminal is put back, and who made a system call that its thread may not make is
//! told which.

use libc::{c_int, c_void, siginfo_t};

use crate::log::complain;
use crate::{sandbox, terminal};

/// Signals that end the process, by its own fault or by somebody's ^\ or kill.
const FATAL: [c_int; 7] = [
    libc::SIGQUIT,
    libc::SIGABRT,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGSYS,
];

/// `si_code` of a SIGSYS that a seccomp filter sent.
const SYS_SECCOMP: c_int = 1;
/// Where x86-64's `siginfo_t` has the number of the system call (sigaction(2)).
const SI_SYSCALL: usize = 24;

/// Takes over panics and fatal signals, for the rest of this process. A write beyond
/// RLIMIT_FSIZE is an error from now on, not a death.
pub fn install() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        terminal::restore();
        if sandbox::is_confined() {
            // The usual one may look for a backtrace, in files.
            complain(&format!("absentia: {info}"));
        } else {
            hook(info);
        }
        // A thread that is gone must not leave others waiting for it.
        std::process::abort();
    }));
    for number in FATAL {
        handle(number);
    }
    // SAFETY: ignoring a signal has no preconditions.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

fn handle(number: c_int) {
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_fatal;
    // SAFETY: a sigaction is plain integers, all of which may be zero.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // The default is back when the handler begins, and the stack may be what is exhausted.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_ONSTACK;
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid for the call, and the handler is async-signal-safe.
    unsafe {
        libc::sigaction(number, &action, &mut before);
        // Who started us wanted it ignored (nohup).
        if before.sa_sigaction == libc::SIG_IGN {
            libc::sigaction(number, &before, std::ptr::null_mut());
        }
    }
}

/// Only system calls and atomics: it may come at any instruction.
extern "C" fn on_fatal(number: c_int, info: *mut siginfo_t, _: *mut c_void) {
    terminal::restore();
    // SAFETY: with SA_SIGINFO the kernel hands over a valid siginfo_t, in which a SIGSYS of
    // seccomp has the number at that offset.
    let denied = unsafe {
        (number == libc::SIGSYS && (*info).si_code == SYS_SECCOMP)
            .then(|| *info.cast::<u8>().add(SI_SYSCALL).cast::<c_int>())
    };
    if let Some(call) = denied {
        say(b"absentia: sandbox: ended at a forbidden system call, number ");
        say_number(call);
        say(b"\n");
    }
    // SAFETY: raise is async-signal-safe. The signal is blocked until the handler returns.
    unsafe { libc::raise(number) };
}

fn say(bytes: &[u8]) {
    let _ = rustix::io::write(rustix::stdio::stderr(), bytes);
}

fn say_number(number: c_int) {
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    while at > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    say(&digits[at..]);
}
