//! Routes the guest's port and memory-mapped accesses to the devices.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result, bail};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::block::Block;
use super::console::Console;
use super::disk::{Backing, Overlay};
use super::lab::{Lab, LabState, Request};
use super::serial::{self, BASE, PORTS, Uart, UartState};
use super::virtio::{RingError, Transport, TransportState};
use crate::boot::{LAB_BASE, Windows};
use crate::hostlink::LinkState;
use crate::log::Log;
use crate::memory::Ram;

/// Unknown addresses that are remembered, so that each is named once.
const NAMED_MAX: usize = 64;

/// The console, shared with the thread that feeds it.
pub type SharedConsole = Arc<Mutex<Transport<Console>>>;

/// Everything outside the processor and RAM.
pub struct Bus {
    /// Guest memory.
    pub ram: Ram,
    /// COM1.
    pub uart: Uart,
    /// The disk.
    pub block: Option<Transport<Block>>,
    /// The host link's carrier.
    pub console: SharedConsole,
    /// Where those two are.
    pub windows: Windows,
    /// The lab device.
    pub lab: Lab,
    /// Where complaints go.
    pub log: Arc<Log>,
    /// Accesses to nothing that were named.
    pub named: HashSet<u64>,
}

/// All devices at one moment. The disk's contents are in it, the program's output is not.
#[derive(Clone, Debug)]
pub struct BusState {
    uart: UartState,
    block: Option<(TransportState, Overlay)>,
    console: (TransportState, LinkState),
    lab: LabState,
}

/// Locks the console; a panic elsewhere does not make its state any worse.
pub fn lock(console: &SharedConsole) -> MutexGuard<'_, Transport<Console>> {
    console
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Which register of the serial port is there.
fn uart_register(port: u16) -> Option<u8> {
    let offset = port.checked_sub(BASE).filter(|offset| *offset < PORTS)?;
    u8::try_from(offset).ok()
}

impl Bus {
    /// Reads the devices' state. The disk must be an overlay.
    pub fn save(&self) -> Result<BusState> {
        let block = match &self.block {
            None => None,
            Some(block) => match &block.device.backing {
                Backing::Overlay(overlay) => Some((block.save(), overlay.clone())),
                Backing::File(_) | Backing::CopyOnWrite(_) => {
                    bail!("a disk that is changed in place cannot be saved")
                }
            },
        };
        let console = lock(&self.console);
        Ok(BusState {
            uart: serial::save(&self.uart),
            block,
            console: (console.save(), console.device.link.save()),
            lab: self.lab.save(),
        })
    }

    /// Puts a state of the same devices back.
    pub fn restore(&mut self, state: &BusState) -> Result<()> {
        serial::restore(&mut self.uart, &state.uart).context("COM1")?;
        match (&mut self.block, &state.block) {
            (None, None) => {}
            (Some(block), Some((registers, overlay))) => {
                block.restore(registers).context("the disk's queue")?;
                block.device.backing = overlay.clone().into();
            }
            _ => bail!("the state of a machine with other devices"),
        }
        let mut console = lock(&self.console);
        console
            .restore(&state.console.0)
            .context("the console's queues")?;
        console.device.link.restore(&state.console.1);
        drop(console);
        self.lab.restore(&state.lab);
        Ok(())
    }

    /// Whether this is an address of RAM.
    pub fn is_ram(&self, at: u64) -> bool {
        self.ram.address_in_range(GuestAddress(at))
    }

    /// A load outside the memory slots (or from RAM, when KVM could not complete it there).
    pub fn mmio_read(&mut self, at: u64, data: &mut [u8]) {
        if self.is_ram(at) {
            if self.ram.read_slice(data, GuestAddress(at)).is_err() {
                data.fill(0xff);
            }
            return;
        }
        if let (Some(offset), Some(block)) = (self.windows.disk.offset(at), &mut self.block) {
            block.read(offset, data);
        } else if let Some(offset) = self.windows.console.offset(at) {
            lock(&self.console).read(offset, data);
        } else if abi::page_down(at) == LAB_BASE {
            data.fill(0);
        } else {
            self.name("load from", at);
            data.fill(0xff);
        }
    }

    /// A store outside the memory slots.
    pub fn mmio_write(&mut self, at: u64, data: &[u8]) -> Option<Request> {
        if self.is_ram(at) {
            // Beyond the end of RAM there is nobody to tell.
            let _ = self.ram.write_slice(data, GuestAddress(at));
            return None;
        }
        if let (Some(offset), Some(block)) = (self.windows.disk.offset(at), &mut self.block) {
            let result = block.write(offset, data, &self.ram);
            self.ring(result, "block");
        } else if let Some(offset) = self.windows.console.offset(at) {
            let result = lock(&self.console).write(offset, data, &self.ram);
            self.ring(result, "console");
        } else if abi::page_down(at) == LAB_BASE {
            let offset = at - LAB_BASE;
            return self.lab.write(offset, data, &self.ram, &self.log);
        } else {
            self.name("store to", at);
        }
        None
    }

    /// `in`.
    pub fn port_read(&mut self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(register) = uart_register(port) {
            for byte in data {
                *byte = self.uart.read(register);
            }
        } else {
            self.name("in from port", port.into());
        }
    }

    /// `out`.
    pub fn port_write(&mut self, port: u16, data: &[u8]) -> Option<Request> {
        if port == abi::lab::DEBUG_EXIT_PORT {
            let status = data
                .iter()
                .rev()
                .fold(0, |word, &byte| word << 8 | u64::from(byte));
            return Some(Request::PowerOff(status));
        }
        if let Some(register) = uart_register(port) {
            for &byte in data {
                // It fails when its interrupt or its log does; neither can.
                let _ = self.uart.write(register, byte);
            }
        } else {
            self.name("out to port", port.into());
        }
        None
    }

    fn ring(&self, result: std::result::Result<(), RingError>, device: &str) {
        if let Err(error) = result {
            self.log
                .note(&format!("{device} device stopped until reset: {error}"));
        }
    }

    fn name(&mut self, what: &str, at: u64) {
        if self.named.len() < NAMED_MAX && self.named.insert(at) {
            self.log
                .note(&format!("{what} {at:#x}, where no device is"));
        }
    }
}
