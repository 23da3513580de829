//! One disk and its queue.

use abi::Errno;
use abi::proto::block::{MAX_READ, MAX_TRANSFER, SECTOR};
use core::sync::atomic::{Ordering, fence};
use virtio::dma::{Buffer, Pool};
use virtio::{DeviceStatus, Features, InterruptStatus, Transport, VirtQueue, negotiate};

const QUEUE: u16 = 0;
/// Descriptors; a request takes at most three.
const QUEUE_SIZE: usize = 4;

/// Pages of the DMA region that a [`Disk`] needs: two for the queue, one for header and
/// status, the data.
pub const DMA_PAGES: usize = 3 + (MAX_TRANSFER as usize).div_ceil(abi::PAGE_SIZE);

/// Bytes of virtio's request header: type, reserved, sector.
const HEADER: usize = 16;
const STATUS: usize = HEADER;
/// A status no device writes.
const STATUS_PENDING: u8 = 0xff;

/// What the device is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Operation {
    /// Disk to buffer.
    Read = 0,
    /// Buffer to disk.
    Write = 1,
    /// Cache to stable storage.
    Flush = 4,
}

/// A disk.
pub struct Disk<T: Transport> {
    transport: T,
    queue: VirtQueue<Pool, QUEUE_SIZE>,
    features: Features,
    sectors: u64,
    control: Buffer,
    data: Buffer,
    /// The device broke the protocol or gave up; nothing works any more.
    broken: bool,
}

impl<T: Transport> Disk<T> {
    /// Brings the device up.
    pub fn new(mut transport: T) -> Result<Disk<T>, Errno> {
        let features = negotiate(&mut transport, Features::BLK_RO | Features::BLK_FLUSH)?;
        let half = |offset| transport.read_config_space::<u32>(offset);
        let sectors = transport
            .read_consistent(|| Ok(half(0)? as u64 | (half(4)? as u64) << 32))
            .map_err(|_| Errno::ENODEV)?;
        let queue =
            VirtQueue::new(&mut transport, QUEUE, false, false).map_err(|_| Errno::ENODEV)?;
        let control = Buffer::new(1)?;
        let data = Buffer::new((MAX_TRANSFER as usize).div_ceil(abi::PAGE_SIZE))?;
        transport.finish_init();
        // Nothing is outstanding: whatever an earlier driver left is not ours.
        transport.ack_interrupt();
        Ok(Disk {
            transport,
            queue,
            features,
            sectors,
            control,
            data,
            broken: false,
        })
    }

    /// Size in sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.features.contains(Features::BLK_RO)
    }

    /// The transfer buffer: what was read, or what to write.
    pub fn data(&mut self) -> &mut [u8] {
        self.data.bytes_mut()
    }

    /// The device.
    pub fn device(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Checks a transfer against the disk: whole sectors, inside, not too long.
    pub fn check(&self, operation: Operation, sector: u64, len: u64) -> Result<(), Errno> {
        let most = match operation {
            Operation::Read => MAX_READ,
            Operation::Write | Operation::Flush => MAX_TRANSFER,
        };
        if len == 0 || !len.is_multiple_of(SECTOR) || len > most {
            return Err(Errno::EINVAL);
        }
        match sector.checked_add(len / SECTOR) {
            Some(end) if end <= self.sectors => {}
            _ => return Err(Errno::EINVAL),
        }
        match operation {
            Operation::Write if self.read_only() => Err(Errno::EROFS),
            _ => Ok(()),
        }
    }

    /// Takes notice of an interrupt. Before looking at the ring: the line is edge triggered.
    pub fn acknowledge(&mut self) {
        let cause = self.transport.ack_interrupt();
        // Each register costs an exit: the status is read only when it may have changed.
        if cause.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT) {
            let status = self.transport.get_status();
            self.broken |= status.contains(DeviceStatus::DEVICE_NEEDS_RESET);
        }
    }

    /// Carries out a checked request with the first `len` bytes of the buffer. `wait`
    /// returns when it is time to look at the device again.
    pub fn run(
        &mut self,
        operation: Operation,
        sector: u64,
        len: usize,
        mut wait: impl FnMut(&mut T),
    ) -> Result<(), Errno> {
        if operation == Operation::Flush && !self.features.contains(Features::BLK_FLUSH) {
            // Without the feature there is no cache to flush.
            return Ok(());
        }
        if self.broken {
            return Err(Errno::EIO);
        }
        let control = self.control.bytes_mut();
        control[..4].copy_from_slice(&(operation as u32).to_le_bytes());
        control[4..8].fill(0);
        control[8..HEADER].copy_from_slice(&sector.to_le_bytes());
        control[STATUS] = STATUS_PENDING;
        // A device that completes inside the notification need not interrupt.
        self.queue.set_dev_notify(false);
        let token = self.buffers(operation, len, |queue, inputs, outputs| {
            // SAFETY: the buffers belong to this disk, and nothing touches them until the
            // token is popped below (or never again, once the disk is `broken`).
            unsafe { queue.add(inputs, outputs) }
        });
        let token = token.map_err(|_| self.give_up())?;
        if self.queue.should_notify() {
            self.transport.notify(QUEUE);
        }
        if !self.queue.can_pop() {
            self.queue.set_dev_notify(true);
            // The device may have completed before it saw the flag.
            fence(Ordering::SeqCst);
        }
        while !self.queue.can_pop() {
            wait(&mut self.transport);
            self.acknowledge();
            if self.broken {
                return Err(Errno::EIO);
            }
        }
        let popped = self.buffers(operation, len, |queue, inputs, outputs| {
            // SAFETY: the same buffers as were added under this token.
            unsafe { queue.pop_used(token, inputs, outputs) }.map(|_| 0)
        });
        popped.map_err(|_| self.give_up())?;
        match self.control.bytes()[STATUS] {
            0 => Ok(()),
            _ => Err(Errno::EIO),
        }
    }

    fn give_up(&mut self) -> Errno {
        self.broken = true;
        Errno::EIO
    }

    /// Calls `f` with the chain of a request: what the device reads, what it writes.
    fn buffers(
        &mut self,
        operation: Operation,
        len: usize,
        f: impl for<'a> FnOnce(
            &mut VirtQueue<Pool, QUEUE_SIZE>,
            &'a [&'a [u8]],
            &'a mut [&'a mut [u8]],
        ) -> Result<u16, virtio::Error>,
    ) -> Result<u16, virtio::Error> {
        let (header, status) = self.control.bytes_mut().split_at_mut(STATUS);
        let status = &mut status[..1];
        let data = &mut self.data.bytes_mut()[..len];
        let queue = &mut self.queue;
        match operation {
            Operation::Read => f(queue, &[header], &mut [data, status]),
            Operation::Write => f(queue, &[header, data], &mut [status]),
            Operation::Flush => f(queue, &[header], &mut [status]),
        }
    }
}
