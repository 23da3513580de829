//! virtio-console, one port: the carrier of the host link.

use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::virtio::{Device, RingError, next_chain};
use crate::control::Stop;
use crate::hostlink::Link;
use crate::hostlink::input::Input;
use crate::memory::Ram;

/// Queue with the guest's buffers for input.
pub const RECEIVE: usize = 0;
/// Queue with the guest's output.
pub const TRANSMIT: usize = 1;
const QUEUES: [u16; 2] = [256, 256];

/// Bytes that are copied at a time.
const CHUNK: usize = 4096;

/// The device.
#[derive(Debug)]
pub struct Console {
    /// What the guest's bytes mean.
    pub link: Link,
    input: Arc<Input>,
    stop: Arc<Stop>,
}

impl Console {
    /// A console between a link and the input for it.
    pub fn new(link: Link, input: Arc<Input>, stop: Arc<Stop>) -> Console {
        Console { link, input, stop }
    }

    fn transmit(&mut self, queue: &mut Queue, ram: &Ram) -> Result<bool, RingError> {
        let mut used = false;
        for _ in 0..queue.size() {
            let Some((head, chain)) = next_chain(queue, ram)? else {
                break;
            };
            let mut chunk = [0; CHUNK];
            for descriptor in chain.iter().filter(|d| !d.is_write_only()) {
                let mut at = descriptor.addr().0;
                let mut left = descriptor.len() as usize;
                while left > 0 {
                    // Descriptors may overlap, so a chain can be longer than RAM.
                    if self.stop.requested() {
                        return Ok(used);
                    }
                    let now = left.min(CHUNK);
                    ram.read_slice(&mut chunk[..now], GuestAddress(at))?;
                    self.link.receive(&chunk[..now]);
                    at += now as u64;
                    left -= now;
                }
            }
            queue.add_used(ram, head, 0)?;
            used = true;
        }
        Ok(used)
    }

    fn receive(&mut self, queue: &mut Queue, ram: &Ram) -> Result<bool, RingError> {
        let mut used = false;
        while self.input.waiting() {
            let Some((head, chain)) = next_chain(queue, ram)? else {
                break;
            };
            let mut chunk = [0; CHUNK];
            let mut written = 0;
            for descriptor in chain.iter().filter(|d| d.is_write_only()) {
                let mut at = descriptor.addr().0;
                let mut left = descriptor.len() as usize;
                while left > 0 {
                    let now = self.input.take(&mut chunk[..left.min(CHUNK)]);
                    if now == 0 {
                        break;
                    }
                    ram.write_slice(&chunk[..now], GuestAddress(at))?;
                    at += now as u64;
                    left -= now;
                    written += now;
                }
            }
            queue.add_used(ram, head, u32::try_from(written).unwrap_or(u32::MAX))?;
            used = true;
            if written == 0 {
                // A chain without room would be answered for ever.
                break;
            }
        }
        Ok(used)
    }
}

impl Device for Console {
    fn kind(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUES
    }

    fn config(&self) -> &[u8] {
        // Only fields of features that are not offered.
        &[]
    }

    fn notify(&mut self, index: usize, queue: &mut Queue, ram: &Ram) -> Result<bool, RingError> {
        match index {
            RECEIVE => self.receive(queue, ram),
            _ => self.transmit(queue, ram),
        }
    }
}
