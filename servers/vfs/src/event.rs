//! eventfd(2): a counter that can be waited for.

use crate::changes::Changes;
use crate::context::{Base, Context};
use crate::memory::Memory;
use abi::Errno;
use alloc::rc::Rc;
use core::cell::Cell;
use linux_raw_sys::general as linux;

/// The counter.
pub struct Counter {
    value: Cell<u64>,
    semaphore: bool,
    /// What waits for it.
    pub changes: Changes,
}

impl Counter {
    /// A counter.
    pub fn new(base: &Base, value: u64, semaphore: bool) -> Rc<Counter> {
        Rc::new(Counter {
            value: Cell::new(value),
            semaphore,
            changes: Changes::new(base),
        })
    }

    fn set(&self, value: u64) {
        self.value.set(value);
        self.changes.both();
    }

    /// read(2).
    pub async fn read(
        &self,
        c: Context<'_>,
        memory: Memory<'_>,
        nonblock: bool,
    ) -> Result<u64, Errno> {
        if memory.len() < 8 {
            return Err(Errno::EINVAL);
        }
        while self.value.get() == 0 {
            self.changes.wait(c, nonblock).await?;
        }
        let value = if self.semaphore { 1 } else { self.value.get() };
        self.set(self.value.get() - value);
        match memory {
            Memory::User { who, address, .. } => {
                c.memory_of(who).put(address, &value).await?;
            }
            Memory::Data(_) | Memory::Buffer(_) => return Err(Errno::EINVAL),
        }
        Ok(8)
    }

    /// write(2).
    pub async fn write(
        &self,
        c: Context<'_>,
        memory: Memory<'_>,
        nonblock: bool,
    ) -> Result<u64, Errno> {
        let Memory::User { who, address, len } = memory else {
            return Err(Errno::EINVAL);
        };
        if len < 8 {
            return Err(Errno::EINVAL);
        }
        let add: u64 = c.memory_of(who).get(address).await?;
        if add == u64::MAX {
            return Err(Errno::EINVAL);
        }
        loop {
            match self.value.get().checked_add(add) {
                Some(sum) if sum < u64::MAX => {
                    self.set(sum);
                    return Ok(8);
                }
                _ => self.changes.wait(c, nonblock).await?,
            }
        }
    }

    /// POLL* bits.
    pub fn poll(&self) -> u32 {
        let value = self.value.get();
        let mut ready = 0;
        if value > 0 {
            ready |= linux::POLLIN | linux::POLLRDNORM;
        }
        if value < u64::MAX - 1 {
            ready |= linux::POLLOUT | linux::POLLWRNORM;
        }
        ready
    }
}
