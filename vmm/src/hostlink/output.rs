//! Where the program's output goes.

use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use crate::control::Stop;

/// Output that tests keep, at most: a guest that prints for ever must not grow its VMM.
pub const CAPTURE_MAX: usize = 256 << 20;

/// Why output went nowhere.
#[derive(Debug, PartialEq, Eq)]
pub enum Closed {
    /// Nobody reads it any more, or the run is to end.
    Reader,
    /// It cannot be written.
    Failed(Errno),
}

/// One output stream.
#[derive(Debug, Clone)]
pub enum Sink {
    /// A descriptor of this process.
    Host(BorrowedFd<'static>),
    /// A buffer.
    Capture(Arc<Mutex<Vec<u8>>>),
}

impl Sink {
    /// This process's standard output.
    pub fn stdout() -> Sink {
        Sink::Host(rustix::stdio::stdout())
    }

    /// This process's standard error.
    pub fn stderr() -> Sink {
        Sink::Host(rustix::stdio::stderr())
    }

    /// A buffer and the sink that fills it.
    pub fn capture() -> (Sink, Arc<Mutex<Vec<u8>>>) {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        (Sink::Capture(buffer.clone()), buffer)
    }

    /// Writes all of `data`, waiting for a slow reader but not beyond the end of the run.
    pub fn write(&mut self, data: &[u8], stop: &Stop) -> Result<(), Closed> {
        match self {
            Sink::Host(fd) => write_all(*fd, data, stop),
            Sink::Capture(buffer) => {
                let mut buffer = buffer
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                if buffer.len() + data.len() > CAPTURE_MAX {
                    return Err(Closed::Reader);
                }
                buffer.extend_from_slice(data);
                Ok(())
            }
        }
    }
}

/// What a pipe that polls writable takes without blocking.
const ATOMIC_WRITE: usize = 4096;

fn write_all(fd: BorrowedFd<'static>, mut data: &[u8], stop: &Stop) -> Result<(), Closed> {
    while !data.is_empty() {
        let mut waiting = [
            PollFd::new(&fd, PollFlags::OUT),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut waiting, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(Closed::Failed(error)),
        }
        let writable = !waiting[0].revents().is_empty();
        if !writable && stop.requested() {
            return Err(Closed::Reader);
        }
        match rustix::io::write(fd, &data[..data.len().min(ATOMIC_WRITE)]) {
            Ok(written) => data = &data[written..],
            Err(Errno::INTR | Errno::AGAIN) if !stop.requested() => {}
            Err(Errno::PIPE) => return Err(Closed::Reader),
            Err(Errno::INTR | Errno::AGAIN) => return Err(Closed::Reader),
            Err(error) => return Err(Closed::Failed(error)),
        }
    }
    Ok(())
}
