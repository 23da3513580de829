//! process_vm_readv and process_vm_writev: copies between the caller and a process that it may
//! access. Protections hold here.

use crate::calls::Caller;
use crate::server::Pm;
use crate::system::System;
use abi::kernel::user_range;
use abi::message::WORDS;
use abi::{Endpoint, Errno, PAGE};
use alloc::vec;
use alloc::vec::Vec;
use rt::room;

/// Most elements of a list (Linux: UIO_MAXIOV).
const PARTS_MAX: u64 = 1024;
/// Most bytes of one call (Linux: MAX_RW_COUNT).
const BYTES_MAX: u64 = 0x7fff_f000;

/// A list of ranges, read one after the other.
struct Ranges {
    parts: Vec<(u64, u64)>,
    next: usize,
    done: u64,
}

impl Ranges {
    /// Where the next bytes are, at most `most` and in one page.
    fn here(&mut self, most: u64) -> Option<(u64, u64)> {
        while let Some(&(base, len)) = self.parts.get(self.next) {
            if self.done < len {
                let at = base.wrapping_add(self.done);
                return Some((at, (len - self.done).min(most).min(PAGE - at % PAGE)));
            }
            (self.next, self.done) = (self.next + 1, 0);
        }
        None
    }
}

impl<S: System> Pm<S> {
    /// process_vm_readv(pid, local, locals, remote, remotes, flags), or with `write`
    /// process_vm_writev.
    pub fn process_vm(
        &mut self,
        caller: Caller,
        a: [u64; WORDS],
        write: bool,
    ) -> Result<u64, Errno> {
        if a[5] != 0 || a[2] > PARTS_MAX || a[4] > PARTS_MAX {
            return Err(Errno::EINVAL);
        }
        let mut local = self.ranges(caller.who, a[1], a[2])?;
        for &(base, len) in &local.parts {
            user_range(base, len)?;
        }
        if local.here(1).is_none() {
            return Ok(0);
        }
        let mut remote = self.ranges(caller.who, a[3], a[4])?;
        let slot = self.table.slot_of_tid(a[0] as u32).ok_or(Errno::ESRCH)?;
        let thread = self.table.thread(slot).ok_or(Errno::ESRCH)?;
        let (who, pid) = (thread.endpoint, thread.pid);
        self.may_access(caller, pid)?;
        let mut page = vec![0; PAGE as usize];
        let mut total = 0;
        while let Some((there, most)) = remote.here(BYTES_MAX - total) {
            let Some((here, n)) = local.here(most) else {
                break;
            };
            if n == 0 {
                break;
            }
            let piece = &mut page[..n as usize];
            let (from, to) = ((who, there), (caller.who, here));
            let (from, to) = if write { (to, from) } else { (from, to) };
            let copied = self
                .read_bytes(from.0, from.1, piece)
                .and_then(|()| self.write_bytes(to.0, to.1, piece));
            match copied {
                Ok(()) => total += n,
                Err(_) if total > 0 => break,
                Err(errno) => return Err(errno),
            }
            local.done += n;
            remote.done += n;
        }
        Ok(total)
    }

    fn ranges(&mut self, who: Endpoint, list: u64, count: u64) -> Result<Ranges, Errno> {
        let mut bytes = room::zeroed(count as usize * 16)?;
        self.read_bytes(who, list, &mut bytes)?;
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        let parts = bytes.chunks_exact(16);
        let parts = room::collect(parts.map(|part| (word(&part[..8]), word(&part[8..]))))?;
        if parts.iter().any(|&(_, len)| len > i64::MAX as u64) {
            return Err(Errno::EINVAL);
        }
        Ok(Ranges {
            parts,
            next: 0,
            done: 0,
        })
    }
}
