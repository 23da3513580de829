//! The lab device ([`abi::lab`]): doorbells by which the guest talks to its VMM.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::lab;
use vm_memory::{Bytes, GuestAddress};

use super::size;
use crate::log::{LINE_MAX, Log};
use crate::memory::Ram;

/// What a doorbell asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// End the machine.
    PowerOff(u64),
    /// PROGRAM's first instruction is about to run.
    ProgramStarted,
    /// Guest-physical address of the kernel's [`abi::trace::Control`], to be filled in.
    Control(u64),
    /// The point of this number was reached.
    Point(u64),
    /// Nobody can run.
    Stuck,
    /// The trace ring is full.
    TraceFull,
    /// The withdrawn page at this guest-physical address is wanted back.
    Restore(u64),
}

/// The page's registers.
#[derive(Debug, Default)]
pub struct Lab {
    log_address: u64,
    /// Where the kernel's [`lab::Inspection`] lies; 0 before it said so.
    pub inspection: Arc<AtomicU64>,
}

/// The page at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabState {
    log_address: u64,
    /// Where the kernel's [`lab::Inspection`] lies; 0 before it said so.
    pub inspection: u64,
}

impl Lab {
    /// Its state.
    pub fn save(&self) -> LabState {
        LabState {
            log_address: self.log_address,
            inspection: self.inspection.load(Ordering::Acquire),
        }
    }

    /// Puts a state back.
    pub fn restore(&mut self, state: &LabState) {
        self.log_address = state.log_address;
        self.inspection.store(state.inspection, Ordering::Release);
    }

    /// A store to the page. Only whole, aligned registers count.
    pub fn write(&mut self, offset: u64, data: &[u8], ram: &Ram, log: &Log) -> Option<Request> {
        let value = u64::from_le_bytes(data.try_into().ok()?);
        match offset {
            lab::LOG_ADDRESS => self.log_address = value,
            lab::LOG_DOORBELL => {
                let mut text = [0; LINE_MAX];
                let len = size(value.min(LINE_MAX as u64));
                match ram.read_slice(&mut text[..len], GuestAddress(self.log_address)) {
                    Ok(()) => log.line("guest", &text[..len]),
                    Err(_) => log.note("the guest logs a line outside its RAM"),
                }
            }
            lab::INSPECTION => self.inspection.store(value, Ordering::Release),
            lab::POWEROFF => return Some(Request::PowerOff(value)),
            lab::PROGRAM_STARTED => return Some(Request::ProgramStarted),
            lab::CONTROL => return Some(Request::Control(value)),
            lab::POINT => return Some(Request::Point(value)),
            lab::STUCK => return Some(Request::Stuck),
            lab::TRACE_FULL => return Some(Request::TraceFull),
            lab::RESTORE => return Some(Request::Restore(value)),
            _ => {}
        }
        None
    }
}
