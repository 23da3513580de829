//! epoll_create(2) and its relatives, timerfd_create(2) and its.

use super::readiness::{deadline, restore_mask, swap_mask, timespec};
use super::{Args, fd};
use crate::file::epoll::Epoll;
use crate::file::{Kind, OpenFile};
use crate::poll::until;
use crate::state::Caller;
use crate::timer::Timer;
use abi::Errno;
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

/// struct epoll_event: events and data without padding.
const EVENT: usize = 12;
/// Events told of at once, as many as Linux allows.
const EVENTS_MAX: usize = i32::MAX as usize / EVENT;

fn add(c: &Caller, kind: Kind, flags: u32) -> Result<u64, Errno> {
    let status = linux::O_RDWR | flags & linux::O_NONBLOCK;
    let file = OpenFile::new(c.context(), kind, None, None, status)?;
    let fd = c
        .process
        .files()
        .add(0, file, flags & linux::O_CLOEXEC != 0, c.payer())?;
    Ok(fd as u64)
}

/// epoll_create(2): the size is a hint of old, but must be one.
pub fn create(c: &Caller, a: Args) -> Result<u64, Errno> {
    if a[0] as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    create1(c, 0)
}

/// epoll_create1(2)
pub fn create1(c: &Caller, flags: u64) -> Result<u64, Errno> {
    let flags = flags as u32;
    if flags & !linux::EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    add(c, Kind::Epoll(Epoll::new(&c.vfs.base)), flags)
}

fn set(file: &OpenFile) -> Result<&Rc<Epoll>, Errno> {
    match &file.kind {
        Kind::Epoll(epoll) => Ok(epoll),
        _ => Err(Errno::EINVAL),
    }
}

/// epoll_ctl(2)
pub async fn control(c: &Caller, a: Args) -> Result<u64, Errno> {
    let command = a[1] as u32;
    let (events, data) = if command == linux::EPOLL_CTL_DEL {
        (0, 0)
    } else {
        let mut bytes = [0; EVENT];
        c.memory().read(a[3], &mut bytes).await?;
        let [e0, e1, e2, e3, data @ ..] = bytes;
        (
            u32::from_le_bytes([e0, e1, e2, e3]),
            u64::from_le_bytes(data),
        )
    };
    let (epoll, file) = (c.file(a[0])?, c.file(a[2])?);
    let epoll = set(&epoll)?;
    match command {
        linux::EPOLL_CTL_ADD => epoll.add(c.context(), fd(a[2]), &file, events, data)?,
        linux::EPOLL_CTL_MOD => epoll.modify(fd(a[2]), &file, events, data)?,
        linux::EPOLL_CTL_DEL => epoll.remove(fd(a[2]), &file)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// epoll_wait(2), epoll_pwait(2)
pub async fn wait(c: &Caller, a: Args, mask: bool) -> Result<u64, Errno> {
    let ms = u64::try_from(a[3] as i32).ok();
    let ns = ms.map(|ms| ms * 1_000_000);
    wait_masked(c, a, ns, if mask { a[4] } else { 0 }, a[5]).await
}

/// epoll_pwait2(2)
pub async fn pwait2(c: &Caller, a: Args) -> Result<u64, Errno> {
    let ns = match a[3] {
        0 => None,
        address => Some(timespec(c.memory().get(address).await?)?),
    };
    wait_masked(c, a, ns, a[4], a[5]).await
}

async fn wait_masked(
    c: &Caller,
    a: Args,
    ns: Option<u64>,
    mask: u64,
    size: u64,
) -> Result<u64, Errno> {
    let max = usize::try_from(a[2] as i32).map_err(|_| Errno::EINVAL)?;
    if max == 0 || max > EVENTS_MAX {
        return Err(Errno::EINVAL);
    }
    let file = c.file(a[0])?;
    let epoll = set(&file)?;
    let deadline = deadline(c, ns);
    let swapped = swap_mask(c, mask, size).await?;
    let mut found = Vec::new();
    let result = until(c, deadline, async |round| {
        epoll.take(max, round, &mut found).await;
        Ok(found.len() as u64)
    })
    .await;
    restore_mask(c, swapped);
    // Never restarted, as on Linux.
    result.map_err(|errno| match errno {
        Errno::ERESTARTNOHAND => Errno::EINTR,
        errno => errno,
    })?;
    let mut bytes = rt::room::vector(found.len() * EVENT)?;
    for (events, data) in found {
        bytes.extend_from_slice(&events.to_le_bytes());
        bytes.extend_from_slice(&data.to_le_bytes());
    }
    // What fits is told of.
    let told = c.memory().write_some(a[1], &bytes).await? / EVENT;
    match bytes.is_empty() || told > 0 {
        true => Ok(told as u64),
        false => Err(Errno::EFAULT),
    }
}

/// timerfd_create(2)
pub fn timer_create(c: &Caller, a: Args) -> Result<u64, Errno> {
    let (clock, flags) = (a[0] as u32, a[1] as u32);
    if flags & !linux::TFD_CREATE_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let realtime = match clock {
        linux::CLOCK_REALTIME | linux::CLOCK_REALTIME_ALARM => true,
        linux::CLOCK_MONOTONIC | linux::CLOCK_BOOTTIME | linux::CLOCK_BOOTTIME_ALARM => false,
        _ => return Err(Errno::EINVAL),
    };
    add(c, Kind::Timer(Timer::new(&c.vfs.base, realtime)), flags)
}

fn timer(file: &OpenFile) -> Result<&Rc<Timer>, Errno> {
    match &file.kind {
        Kind::Timer(timer) => Ok(timer),
        _ => Err(Errno::EINVAL),
    }
}

/// struct itimerspec: interval and value, each seconds and ns.
fn itimerspec((left, interval): (u64, u64)) -> [u64; 4] {
    let second = 1_000_000_000;
    [
        interval / second,
        interval % second,
        left / second,
        left % second,
    ]
}

/// timerfd_settime(2)
pub async fn timer_set(c: &Caller, a: Args) -> Result<u64, Errno> {
    if a[1] as u32 & !(linux::TFD_TIMER_ABSTIME | linux::TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    // struct itimerspec.
    let [interval, value]: [[i64; 2]; 2] = c.memory().get(a[2]).await?;
    let (interval, value) = (timespec(interval)?, timespec(value)?);
    let file = c.file(a[0])?;
    let timer = timer(&file)?;
    let old = timer.left();
    let machine = &c.vfs.base.machine;
    let next = match value {
        0 => 0,
        value if a[1] as u32 & linux::TFD_TIMER_ABSTIME == 0 => machine.now().saturating_add(value),
        value if timer.realtime => {
            let booted = machine.wall_clock().saturating_sub(machine.now());
            value.saturating_sub(booted).max(1)
        }
        value => value,
    };
    timer.set(next, interval);
    if a[3] != 0 {
        c.memory().put(a[3], &itimerspec(old)).await?;
    }
    Ok(0)
}

/// timerfd_gettime(2)
pub async fn timer_get(c: &Caller, a: Args) -> Result<u64, Errno> {
    let file = c.file(a[0])?;
    let left = timer(&file)?.left();
    c.memory().put(a[1], &itimerspec(left)).await?;
    Ok(0)
}
