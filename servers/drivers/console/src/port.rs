//! The virtio console's queues: port 0, without MULTIPORT.

use crate::world::{PAYLOAD, Port};
use abi::Errno;
use abi::hostlink::{Channel, HEADER, header};
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};
use virtio::dma::{Buffer, Pool};
use virtio::{DeviceStatus, Features, InterruptStatus, Transport, VirtQueue, negotiate};

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// Buffers of a page in each direction.
const SIZE: usize = 16;

/// Pages of the DMA region that a port needs: two for each queue, and the buffers.
pub const DMA_PAGES: usize = 4 + 2 * SIZE;

/// One queue whose buffers each make a chain of one descriptor; a chain's token is below
/// `SIZE` and names its buffer while the device has it.
struct Ring {
    queue: VirtQueue<Pool, SIZE>,
    buffers: Vec<Buffer>,
    /// Buffer of each token the device has, and the length it was given.
    lent: [Option<(usize, usize)>; SIZE],
}

impl Ring {
    fn new(transport: &mut impl Transport, index: u16) -> Result<Ring, Errno> {
        let queue = VirtQueue::new(transport, index, false, false).map_err(|_| Errno::ENODEV)?;
        let buffers = (0..SIZE)
            .map(|_| Buffer::new(1))
            .collect::<Result<_, _>>()?;
        Ok(Ring {
            queue,
            buffers,
            lent: [None; SIZE],
        })
    }

    /// Gives the first `len` bytes of a buffer to the device, to write or to read.
    fn lend(&mut self, buffer: usize, len: usize, to_write: bool) -> Result<(), Errno> {
        let bytes = &mut self.buffers[buffer].bytes_mut()[..len];
        // SAFETY: the buffer lives as long as the driver and is not touched before its token
        // comes back: `lent` holds it until then.
        let token = unsafe {
            match to_write {
                true => self.queue.add(&[], &mut [bytes]),
                false => self.queue.add(&[bytes], &mut []),
            }
        };
        let token = usize::from(token.map_err(|_| Errno::EIO)?);
        *self.lent.get_mut(token).ok_or(Errno::EIO)? = Some((buffer, len));
        Ok(())
    }

    /// Takes back a buffer that the device is done with: which, and how much it wrote.
    fn take_back(&mut self, to_write: bool) -> Result<Option<(usize, usize)>, Errno> {
        let Some(token) = self.queue.peek_used() else {
            return Ok(None);
        };
        // What the device says is checked: it must have been lent that.
        let lent = self.lent.get_mut(usize::from(token)).ok_or(Errno::EIO)?;
        let (buffer, len) = lent.take().ok_or(Errno::EIO)?;
        let bytes = &mut self.buffers[buffer].bytes_mut()[..len];
        // SAFETY: the same slice as `lend` added under this token.
        let written = unsafe {
            match to_write {
                true => self.queue.pop_used(token, &[], &mut [bytes]),
                false => self.queue.pop_used(token, &[bytes], &mut []),
            }
        };
        let written = written.map_err(|_| Errno::EIO)? as usize;
        Ok(Some((buffer, written.min(len))))
    }
}

/// The device.
pub struct VirtioPort<T: Transport> {
    transport: T,
    receive: Ring,
    transmit: Ring,
    /// Transmit buffers that the device does not have.
    free: Vec<usize>,
    /// Buffers were lent since the device was last told.
    untold: bool,
    /// The device broke the protocol: nothing comes any more, and output goes nowhere.
    broken: bool,
    /// See [`VirtioPort::polled`].
    polled: bool,
}

impl<T: Transport> VirtioPort<T> {
    /// Brings the device up and gives it buffers for input.
    pub fn new(mut transport: T) -> Result<VirtioPort<T>, Errno> {
        negotiate(&mut transport, Features::empty())?;
        let mut receive = Ring::new(&mut transport, RECEIVE)?;
        let mut transmit = Ring::new(&mut transport, TRANSMIT)?;
        transmit.queue.set_dev_notify(false);
        transport.finish_init();
        transport.ack_interrupt();
        for buffer in 0..SIZE {
            receive.lend(buffer, abi::PAGE_SIZE, true)?;
        }
        transport.notify(RECEIVE);
        Ok(VirtioPort {
            transport,
            receive,
            transmit,
            free: (0..SIZE).collect(),
            untold: false,
            broken: false,
            polled: false,
        })
    }

    /// From now on it waits in [`Port::push`] until the device is done, without an interrupt,
    /// and nothing is received.
    pub fn polled(mut self) -> VirtioPort<T> {
        self.polled = true;
        self
    }

    /// The device.
    pub fn device(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Takes notice of an interrupt. Before looking at the rings: the line is edge triggered.
    pub fn acknowledge(&mut self) {
        let cause = self.transport.ack_interrupt();
        // Each register costs an exit: the status is read only when it may have changed.
        if cause.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT)
            && self
                .transport
                .get_status()
                .contains(DeviceStatus::DEVICE_NEEDS_RESET)
        {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        if !self.broken {
            self.broken = true;
            rt::log!("the console device broke the protocol");
        }
    }

    /// Passes everything that has arrived to `f`.
    pub fn receive(&mut self, mut f: impl FnMut(&[u8])) {
        let mut again = false;
        while !self.broken && !self.polled {
            match self.receive.take_back(true) {
                Ok(None) => break,
                Ok(Some((buffer, len))) => {
                    f(&self.receive.buffers[buffer].bytes()[..len]);
                    match self.receive.lend(buffer, abi::PAGE_SIZE, true) {
                        Ok(()) => again = true,
                        Err(_) => self.give_up(),
                    }
                }
                Err(_) => self.give_up(),
            }
        }
        if again && self.receive.queue.should_notify() {
            self.transport.notify(RECEIVE);
        }
    }

    /// Takes back transmit buffers.
    fn reclaim(&mut self) {
        while !self.broken {
            match self.transmit.take_back(false) {
                Ok(None) => break,
                Ok(Some((buffer, _))) => self.free.push(buffer),
                Err(_) => self.give_up(),
            }
        }
    }
}

impl<T: Transport> Port for VirtioPort<T> {
    fn send(&mut self, channel: Channel, payload: &[u8]) -> bool {
        if self.broken {
            return true;
        }
        let payload = &payload[..payload.len().min(PAYLOAD)];
        let Some(buffer) = self.free.pop() else {
            return false;
        };
        let len = HEADER + payload.len();
        let bytes = self.transmit.buffers[buffer].bytes_mut();
        bytes[..HEADER].copy_from_slice(&header(channel, payload.len()));
        bytes[HEADER..len].copy_from_slice(payload);
        match self.transmit.lend(buffer, len, false) {
            Ok(()) => self.untold = true,
            Err(_) => self.give_up(),
        }
        true
    }

    fn push(&mut self) -> bool {
        if self.broken {
            return true;
        }
        if self.untold {
            self.untold = false;
            // A device that is done inside the notification need not interrupt.
            self.transmit.queue.set_dev_notify(false);
            if self.transmit.queue.should_notify() {
                self.transport.notify(TRANSMIT);
            }
        }
        self.reclaim();
        while self.polled && !self.drained() {
            core::hint::spin_loop();
            self.reclaim();
        }
        if !self.drained() {
            self.transmit.queue.set_dev_notify(true);
            // It may have finished before it saw the flag.
            fence(Ordering::SeqCst);
            self.reclaim();
        }
        !self.free.is_empty()
    }

    fn drained(&self) -> bool {
        self.broken || self.free.len() == SIZE
    }
}
