//! Signals between terminals and jobs.

use super::info::Info;
use super::set::{SIGCONT, SIGHUP, STOPS, is_signal};
use crate::server::Pm;
use crate::system::System;
use abi::proto::{pm, terminal};
use abi::{Endpoint, Errno};
use linux_raw_sys::general as linux;

const SIGTTOU: i32 = linux::SIGTTOU as i32;

impl<S: System> Pm<S> {
    /// A process in the background uses its terminal: VFS hears what is to become of that.
    pub fn job_control(&mut self, request: pm::JobControl) -> Result<pm::JobVerdict, Errno> {
        let signalled = self.stop_background(request.who, request.signal)?;
        Ok(pm::JobVerdict { signalled })
    }

    /// Raises `signal` for the group of `who`, unless it would not care: then `false`, or
    /// `EIO` for who wants to read.
    fn stop_background(&mut self, who: Endpoint, signal: i32) -> Result<bool, Errno> {
        if !is_signal(signal) || !STOPS.has(signal) {
            return Err(Errno::EINVAL);
        }
        let slot = self.table.slot_of(who).ok_or(Errno::ESRCH)?;
        let thread = self.table.thread(slot).ok_or(Errno::ESRCH)?;
        let process = self.table.process(thread.pid).ok_or(Errno::ESRCH)?;
        let ignores = process.actions.ignored().has(signal);
        if thread.blocked.has(signal) || ignores {
            return match signal {
                SIGTTOU => Ok(false),
                _ => Err(Errno::EIO),
            };
        }
        let group = process.group;
        if self.is_orphaned(group) {
            return Err(Errno::EIO);
        }
        self.send_group(group, Info::kernel(signal));
        Ok(true)
    }

    /// The terminal of a session is gone.
    pub fn hang_up(&mut self, session: u32) {
        let leads = self.table.process(session);
        if leads.is_some_and(|process| process.session == session) {
            for signal in [SIGHUP, SIGCONT] {
                // One that has ended needs no telling.
                let _ = self.send_process(session, Info::kernel(signal));
            }
        }
    }

    /// A process ended: with its leader a session loses its terminal.
    pub fn end_session(&mut self, pid: u32) {
        let leads = self.table.process(pid).is_some_and(|p| p.session == pid);
        if leads && let Some(console) = self.boot.console {
            let session = pid;
            self.sys.post(console, terminal::SessionEnded { session });
        }
    }
}
