//! What goes to the guest: standard input within its credit, and the terminal's size.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use abi::hostlink::{Channel, STDIN_CREDIT, header};
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::control::{Stop, borrow};

/// Where standard input comes from.
#[derive(Debug)]
pub enum Source {
    /// This process's standard input.
    Host,
    /// Any other descriptor.
    Descriptor(OwnedFd),
    /// These bytes, then end of file.
    Bytes(Vec<u8>),
}

/// Packets on their way to the guest. Never holds more than the credit, the end-of-file
/// packet and the latest window size.
#[derive(Debug)]
pub struct Input {
    state: Mutex<State>,
    wake: EventFd,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    credit: usize,
    window: Option<(u16, u16)>,
    end: bool,
}

impl Input {
    /// Nothing sent, the initial credit unused.
    pub fn new() -> Result<Arc<Input>> {
        let state = Mutex::new(State {
            credit: STDIN_CREDIT,
            ..State::default()
        });
        let wake = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).context("eventfd")?;
        Ok(Arc::new(Input { state, wake }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The guest can take `bytes` more. A guest that claims more than it was sent gains
    /// nothing.
    pub fn credit(&self, bytes: u32) {
        let mut state = self.lock();
        state.credit = state
            .credit
            .saturating_add(bytes as usize)
            .min(STDIN_CREDIT);
        drop(state);
        let _ = self.wake.write(1);
    }

    /// The terminal has a new size.
    pub fn window(&self, rows: u16, columns: u16) {
        self.lock().window = Some((rows, columns));
        let _ = self.wake.write(1);
    }

    /// The guest is to end the run by itself.
    pub fn end(&self) {
        self.lock().end = true;
        let _ = self.wake.write(1);
    }

    /// Whether there is something for the guest.
    pub fn waiting(&self) -> bool {
        let state = self.lock();
        !state.bytes.is_empty() || state.window.is_some() || state.end
    }

    /// Moves bytes for the guest into `buffer`; returns how many.
    pub fn take(&self, buffer: &mut [u8]) -> usize {
        let mut state = self.lock();
        if let Some((rows, columns)) = state.window.take() {
            // Between packets only: `bytes` starts with one unless a part of it was taken.
            state.bytes.extend(header(Channel::WindowSize, 4));
            state.bytes.extend(rows.to_le_bytes());
            state.bytes.extend(columns.to_le_bytes());
        }
        if std::mem::take(&mut state.end) {
            state.bytes.extend(header(Channel::End, 0));
        }
        let len = buffer.len().min(state.bytes.len());
        for (to, from) in buffer.iter_mut().zip(state.bytes.drain(..len)) {
            *to = from;
        }
        len
    }

    /// Queues standard input the credit allows.
    fn push(&self, data: &[u8]) {
        let mut state = self.lock();
        state.credit = state.credit.saturating_sub(data.len());
        state.bytes.extend(header(Channel::Stdin, data.len()));
        state.bytes.extend(data);
    }

    /// Reads `source` as the credit comes and calls `deliver` when there is something for the
    /// guest, until the run ends.
    pub fn pump(&self, mut source: Source, stop: &Stop, mut deliver: impl FnMut()) {
        let mut open = true;
        let mut given = 0;
        while !stop.requested() {
            if self.waiting() {
                deliver();
            }
            let credit = if open { self.lock().credit } else { 0 };
            if credit > 0
                && let Source::Bytes(bytes) = &source
            {
                let end = bytes.len().min(given + credit);
                self.push(&bytes[given..end]);
                if end == given {
                    (open, source) = (false, Source::Bytes(Vec::new()));
                }
                given = end;
                continue;
            }
            let fd: Option<BorrowedFd<'_>> = match &source {
                Source::Host => Some(rustix::stdio::stdin()),
                Source::Descriptor(fd) => Some(std::os::fd::AsFd::as_fd(fd)),
                Source::Bytes(_) => None,
            };
            let wake = borrow(&self.wake);
            let mut waiting = vec![
                PollFd::new(stop, PollFlags::IN),
                PollFd::new(&wake, PollFlags::IN),
            ];
            if let Some(fd) = &fd
                && credit > 0
            {
                waiting.push(PollFd::new(fd, PollFlags::IN));
            }
            match poll(&mut waiting, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let ready = waiting.get(2).is_some_and(|w| !w.revents().is_empty());
            if !waiting[1].revents().is_empty() {
                let _ = self.wake.read();
            }
            if let Some(fd) = fd.filter(|_| ready) {
                let mut buffer = [0; STDIN_CREDIT];
                match rustix::io::read(fd, &mut buffer[..credit]) {
                    Ok(len) => {
                        self.push(&buffer[..len]);
                        open = len > 0;
                    }
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    // A standard input that is closed or not for us is one without data.
                    Err(_) => {
                        self.push(&[]);
                        open = false;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(input: &Input) -> Vec<u8> {
        let mut buffer = vec![0; 3 * STDIN_CREDIT];
        let len = input.take(&mut buffer);
        buffer.truncate(len);
        buffer
    }

    #[test]
    fn input_obeys_the_credit() {
        let input = Input::new().unwrap();
        let stop = Stop::new().unwrap();
        let mut received = Vec::new();
        let total = 3 * STDIN_CREDIT + 5;
        let source = Source::Bytes(vec![b'x'; total]);
        input.pump(source, &stop, || {
            let bytes = drain(&input);
            assert!(bytes.len() <= STDIN_CREDIT + 4);
            let len = usize::from(bytes[2]) | usize::from(bytes[3]) << 8;
            assert_eq!(len, bytes.len() - 4);
            received.extend_from_slice(&bytes[4..]);
            if len == 0 {
                stop.request(crate::control::Reason::Timeout);
            }
            input.credit(len as u32);
        });
        assert_eq!(received.len(), total);
    }

    #[test]
    fn a_guest_cannot_inflate_its_credit() {
        let input = Input::new().unwrap();
        for _ in 0..100 {
            input.credit(u32::MAX);
        }
        assert_eq!(input.lock().credit, STDIN_CREDIT);
    }

    #[test]
    fn the_order_to_end_travels_once() {
        let input = Input::new().unwrap();
        input.end();
        assert!(input.waiting());
        assert_eq!(drain(&input), header(Channel::End, 0));
        assert!(!input.waiting());
    }

    #[test]
    fn only_the_latest_window_size_travels() {
        let input = Input::new().unwrap();
        for rows in 0..1000 {
            input.window(rows, 80);
        }
        assert_eq!(drain(&input), [4, 0, 4, 0, 231, 3, 80, 0]);
        assert!(!input.waiting());
    }
}
