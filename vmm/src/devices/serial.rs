//! COM1, where the kernel logs: a 16550 whose output becomes log lines.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use abi::lab::STARTED_LINE;
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, SerialState, Trigger};

use crate::log::{LINE_MAX, Log};

/// First of the UART's eight ports.
pub const BASE: u16 = abi::lab::SERIAL_PORT;
/// How many there are.
pub const PORTS: u16 = 8;

/// The UART raises no interrupt: nothing is ever sent to the guest.
#[derive(Debug)]
pub struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Gets each line; true when it is not for the log.
pub type Listener = Box<dyn FnMut(&str) -> bool + Send>;

/// Cuts what is written into log lines.
pub struct Lines {
    line: Vec<u8>,
    listener: Option<Listener>,
    log: Arc<Log>,
    /// When the line came that stands for [`abi::lab::PROGRAM_STARTED`].
    pub started: Arc<OnceLock<Instant>>,
}

impl Lines {
    /// Lines for `log`.
    pub fn new(log: Arc<Log>) -> Lines {
        Lines {
            line: Vec::new(),
            listener: None,
            log,
            started: Arc::default(),
        }
    }

    /// From now on `listener` gets every line first.
    pub fn listen(&mut self, listener: impl FnMut(&str) -> bool + Send + 'static) {
        self.listener = Some(Box::new(listener));
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
            }
            if byte == b'\n' || self.line.len() == LINE_MAX {
                if self.line.starts_with(STARTED_LINE.as_bytes()) {
                    self.started.get_or_init(Instant::now);
                }
                let heard = self.listener.as_mut().is_some_and(|listener| {
                    listener(String::from_utf8_lossy(&self.line).trim_end())
                });
                if !heard {
                    self.log.line("serial", &self.line);
                }
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    /// The UART flushes after every byte; a line is what counts.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.log.line("serial", &self.line);
        }
    }
}

/// The UART.
pub type Uart = Serial<NoInterrupt, NoEvents, Lines>;

/// A UART that writes to `log`.
pub fn uart(log: Arc<Log>) -> Uart {
    Serial::new(NoInterrupt, Lines::new(log))
}

/// The UART at one moment.
#[derive(Clone, Debug)]
pub struct UartState {
    registers: SerialState,
    line: Vec<u8>,
}

/// Reads its state.
pub fn save(uart: &Uart) -> UartState {
    UartState {
        registers: uart.state(),
        line: uart.writer().line.clone(),
    }
}

/// Puts a state back.
pub fn restore(uart: &mut Uart, state: &UartState) -> io::Result<()> {
    let before = uart.writer_mut();
    // Taken out, so that no half line is logged.
    before.line.clear();
    let lines = Lines {
        line: state.line.clone(),
        listener: None,
        log: before.log.clone(),
        started: before.started.clone(),
    };
    *uart = Serial::from_state(&state.registers, NoInterrupt, NoEvents, lines)
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(())
}
