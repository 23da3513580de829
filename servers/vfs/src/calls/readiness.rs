//! poll(2), select(2) and their relatives. PM swaps the signal masks of ppoll and pselect6.

use super::Args;
use crate::fd::OPEN_MAX;
use crate::machine::post;
use crate::poll::{Item, wait};
use crate::state::Caller;
use crate::user::zeroed;
use abi::proto::pm;
use abi::{Endpoint, Errno};
use alloc::vec::Vec;
use linux_raw_sys::general as linux;
use rt::room;

/// Files that a call may wait for without being charged.
const FEW: u64 = 64;

const READ_SET: u32 =
    linux::POLLIN | linux::POLLRDNORM | linux::POLLRDBAND | linux::POLLHUP | linux::POLLERR;
const WRITE_SET: u32 = linux::POLLOUT | linux::POLLWRNORM | linux::POLLWRBAND | linux::POLLERR;
const EXCEPT_SET: u32 = linux::POLLPRI;

/// When `ns` from now is: `None` is never, `Some(0)` at once.
pub fn deadline(c: &Caller, ns: Option<u64>) -> Option<u64> {
    ns.map(|ns| {
        if ns == 0 {
            0
        } else {
            c.vfs.base.machine.now().saturating_add(ns).max(1)
        }
    })
}

/// A timespec as ns; `EINVAL`.
pub fn timespec([seconds, ns]: [i64; 2]) -> Result<u64, Errno> {
    if seconds < 0 || !(0..1_000_000_000).contains(&ns) {
        return Err(Errno::EINVAL);
    }
    Ok((seconds as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(ns as u64))
}

/// poll(2). One that a signal cut short goes on until its first deadline ([`abi::proto::vfs::Resume`]).
pub async fn poll(c: &Caller, a: Args) -> Result<u64, Errno> {
    c.process.cut_short.set(None);
    let deadline = c.process.resumed.take().or_else(|| {
        let timeout = a[2] as i32;
        deadline(c, u64::try_from(timeout).ok().map(|ms| ms * 1_000_000))
    });
    let result = poll_until(c, a[0], a[1], deadline).await;
    match (result, deadline) {
        (Err(Errno::ERESTARTNOHAND), Some(_)) => {
            c.process.cut_short.set(deadline);
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
        (result, _) => result,
    }
}

/// ppoll(2)
pub async fn ppoll(c: &Caller, a: Args) -> Result<u64, Errno> {
    let ns = match a[2] {
        0 => None,
        address => Some(timespec(c.memory().get(address).await?)?),
    };
    let deadline = deadline(c, ns);
    let swapped = swap_mask(c, a[3], a[4]).await?;
    let result = poll_until(c, a[0], a[1], deadline).await;
    restore_mask(c, swapped);
    tell_left(c, a[2], deadline, 1, result).await
}

/// The end of a call with a deadline: what is left of its time is told at `address`, in seconds and
/// in `unit` ns (`poll_select_finish`). Made again after a signal, the call waits for that.
async fn tell_left(
    c: &Caller,
    address: u64,
    deadline: Option<u64>,
    unit: u64,
    result: Result<u64, Errno>,
) -> Result<u64, Errno> {
    // A call that does not wait leaves its time as it is.
    let Some(deadline) = deadline.filter(|&deadline| deadline != 0) else {
        return result;
    };
    let left = deadline.saturating_sub(c.vfs.base.machine.now());
    let left = [left / 1_000_000_000, left % 1_000_000_000 / unit];
    match (c.memory().put(address, &left).await, result) {
        (Err(_), Err(Errno::ERESTARTNOHAND)) => Err(Errno::EINTR),
        (_, result) => result,
    }
}

/// Has PM replace the caller's signal mask by the one at `address`, if there is one. When this
/// returns, a signal that the new mask lets through has interrupted the call.
pub async fn swap_mask(c: &Caller, address: u64, size: u64) -> Result<bool, Errno> {
    if address == 0 {
        return Ok(false);
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = c.memory().get(address).await?;
    let who = c.who();
    let peer = c.vfs.base.peer(Endpoint::PM);
    peer.ask(pm::SwapMask { who, mask }).await?;
    Ok(true)
}

/// Undoes [`swap_mask`] before the caller runs again; after an interruption PM has done so
/// when the handler starts.
pub fn restore_mask(c: &Caller, swapped: bool) {
    if swapped {
        post(
            &*c.vfs.base.machine,
            Endpoint::PM,
            pm::RestoreMask { who: c.who() },
        );
    }
}

async fn poll_until(
    c: &Caller,
    address: u64,
    count: u64,
    deadline: Option<u64>,
) -> Result<u64, Errno> {
    if count > OPEN_MAX as u64 {
        return Err(Errno::EINVAL);
    }
    // What a call with few needs is bounded by the number of processes.
    let count_bytes = count as usize * (8 + size_of::<Item>() + size_of::<usize>());
    let _charge = match count {
        0..FEW => None,
        _ => Some(c.context().work(count_bytes)?),
    };
    // struct pollfd: an int, two shorts.
    let mut entries = c.memory().read_vec(address, count as usize * 8).await?;
    let files = c.process.files();
    let mut items = room::vector(count as usize)?;
    let mut indices = room::vector(count as usize)?;
    for (i, entry) in entries.chunks_exact_mut(8).enumerate() {
        let fd = i32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        let events = u16::from_le_bytes([entry[4], entry[5]]);
        entry[6..8].fill(0);
        if fd >= 0 {
            items.push(Item::new(files.get(fd).ok(), u32::from(events)));
            indices.push(i);
        }
    }
    let ready = wait(c, &mut items, deadline).await?;
    for (item, i) in items.iter().zip(indices) {
        entries[i * 8 + 6..][..2].copy_from_slice(&(item.ready as u16).to_le_bytes());
    }
    c.memory().write(address, &entries).await?;
    Ok(ready)
}

/// select(2): the time that is left is written back.
pub async fn select(c: &Caller, a: Args) -> Result<u64, Errno> {
    let ns = match a[4] {
        0 => None,
        address => {
            let [seconds, us]: [i64; 2] = c.memory().get(address).await?;
            if seconds < 0 || us < 0 {
                return Err(Errno::EINVAL);
            }
            let us = (seconds as u64)
                .saturating_mul(1_000_000)
                .saturating_add(us as u64);
            Some(us.saturating_mul(1000))
        }
    };
    let deadline = deadline(c, ns);
    let result = select_until(c, a, deadline).await;
    tell_left(c, a[4], deadline, 1000, result).await
}

/// pselect6(2)
pub async fn pselect(c: &Caller, a: Args) -> Result<u64, Errno> {
    let ns = match a[4] {
        0 => None,
        address => Some(timespec(c.memory().get(address).await?)?),
    };
    let deadline = deadline(c, ns);
    let [mask, size] = match a[5] {
        0 => [0, 0],
        address => c.memory().get(address).await?,
    };
    let swapped = swap_mask(c, mask, size).await?;
    let result = select_until(c, a, deadline).await;
    restore_mask(c, swapped);
    tell_left(c, a[4], deadline, 1, result).await
}

async fn select_until(c: &Caller, a: Args, deadline: Option<u64>) -> Result<u64, Errno> {
    let count = usize::try_from(a[0] as i32)
        .map_err(|_| Errno::EINVAL)?
        .min(OPEN_MAX);
    let bytes = count.div_ceil(64) * 8;
    let memory = c.memory();
    let mut sets = Vec::with_capacity(3);
    for address in &a[1..4] {
        sets.push(match address {
            0 => zeroed(bytes)?,
            address => memory.read_vec(*address, bytes).await?,
        });
    }
    let has = |set: &[u8], fd: usize| set[fd / 8] & 1 << (fd % 8) != 0;
    let files = c.process.files();
    let mut items = Vec::new();
    let mut fds = Vec::new();
    for fd in 0..count {
        let mut events = 0;
        for (set, bits) in sets.iter().zip([READ_SET, WRITE_SET, EXCEPT_SET]) {
            if has(set, fd) {
                events |= bits;
            }
        }
        if events != 0 {
            room::push(&mut items, Item::new(Some(files.get(fd as i32)?), events))?;
            room::push(&mut fds, fd)?;
        }
    }
    wait(c, &mut items, deadline).await?;
    let mut ready = 0;
    let mut found = [zeroed(bytes)?, zeroed(bytes)?, zeroed(bytes)?];
    for (item, fd) in items.iter().zip(fds) {
        for (i, bits) in [READ_SET, WRITE_SET, EXCEPT_SET].into_iter().enumerate() {
            if has(&sets[i], fd) && item.ready & bits != 0 {
                found[i][fd / 8] |= 1 << (fd % 8);
                ready += 1;
            }
        }
    }
    for (address, set) in a[1..4].iter().zip(&found) {
        if *address != 0 {
            memory.write(*address, set).await?;
        }
    }
    Ok(ready)
}
