//! The host's side of the host link: the program's standard streams and its exit status, as
//! packets on one byte stream each way ([`abi::hostlink`]).
//!
//! The same code serves the virtio console under KVM and the chardev under QEMU.

use std::sync::Arc;
use std::time::Instant;

use abi::hostlink::{Channel, EXIT_UNSAVED};

use crate::control::{Reason, Signals, Stop};

pub mod decoder;
pub mod input;
pub mod output;

use decoder::Decoder;
use input::{Input, Source};
use output::{Closed, Sink};

/// A program's standard streams and what belongs to them.
#[derive(Debug)]
pub struct Streams {
    /// Where standard input comes from.
    pub stdin: Source,
    /// Where standard output goes.
    pub stdout: Sink,
    /// Where standard error goes.
    pub stderr: Sink,
    /// Which of them are terminals: bits of [`abi::boot::run_flags`].
    pub terminals: u32,
    /// The terminal's rows and columns.
    pub window: Option<(u16, u16)>,
    /// Signals that end the run or resize the terminal.
    pub signals: Option<Signals>,
}

/// What came from the guest so far, and where it goes.
#[derive(Debug)]
pub struct Link {
    decoder: Decoder,
    stdout: Sink,
    stderr: Sink,
    input: Arc<Input>,
    stop: Arc<Stop>,
    exit: Option<Exit>,
    absent: Vec<u8>,
}

/// The most that is kept of the paths that were not there, bytes.
const ABSENT: usize = 64 << 10;

/// A link at one moment: where in the stream it is, and whether the program has ended. What the
/// sinks took is theirs.
#[derive(Clone, Debug)]
pub struct LinkState {
    decoder: Decoder,
    exit: Option<Exit>,
}

/// The program's end.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// Its status word, as wait4 reports it.
    pub status: u32,
    /// A file system could not write back all that was written to it.
    pub unsaved: bool,
    /// When the packet came.
    pub at: Instant,
}

impl Link {
    /// A link whose output goes to the two sinks.
    pub fn new(stdout: Sink, stderr: Sink, input: Arc<Input>, stop: Arc<Stop>) -> Link {
        Link {
            decoder: Decoder::default(),
            stdout,
            stderr,
            input,
            stop,
            exit: None,
            absent: Vec::new(),
        }
    }

    /// Its state.
    pub fn save(&self) -> LinkState {
        LinkState {
            decoder: self.decoder.clone(),
            exit: self.exit,
        }
    }

    /// Puts a state back.
    pub fn restore(&mut self, state: &LinkState) {
        self.decoder = state.decoder.clone();
        self.exit = state.exit;
    }

    /// The program's end, once it is known.
    pub fn exit(&self) -> Option<Exit> {
        self.exit
    }

    /// The paths that were looked for in the guest and not there, as far as it told.
    pub fn absent(&self) -> Vec<Vec<u8>> {
        let paths = self.absent.split(|&byte| byte == 0);
        paths
            .filter(|path| !path.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// Takes bytes from the guest. A stream that is no host link, or an output that nobody
    /// reads, requests the end of the run.
    pub fn receive(&mut self, bytes: &[u8]) {
        let Link {
            decoder,
            stdout,
            stderr,
            input,
            stop,
            exit,
            absent,
        } = self;
        let result = decoder.feed(bytes, |channel, data| {
            let sink = match channel {
                Channel::Stdout => &mut *stdout,
                Channel::Stderr => &mut *stderr,
                Channel::Exit => {
                    let word = word(data);
                    exit.get_or_insert(Exit {
                        status: word & !EXIT_UNSAVED,
                        unsaved: word & EXIT_UNSAVED != 0,
                        at: Instant::now(),
                    });
                    return;
                }
                Channel::Absent => {
                    let room = ABSENT.saturating_sub(absent.len());
                    absent.extend_from_slice(&data[..data.len().min(room)]);
                    return;
                }
                Channel::StdinCredit => return input.credit(word(data)),
                // Only the host sends these; the decoder refuses them.
                Channel::Stdin | Channel::WindowSize | Channel::End => return,
            };
            match sink.write(data, stop) {
                Ok(()) => {}
                Err(Closed::Reader) => stop.request(Reason::OutputClosed),
                Err(Closed::Failed(error)) => stop.request(Reason::Failure(format!(
                    "writing the program's output: {}",
                    std::io::Error::from(error)
                ))),
            }
        });
        if let Err(error) = result {
            stop.request(Reason::Failure(format!("the guest's console: {error}")));
        }
    }
}

fn word(data: &[u8]) -> u32 {
    data.first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
