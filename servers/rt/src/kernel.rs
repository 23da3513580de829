//! Kernel calls (abi, `Kcall`), one function each.

use abi::boot::ArchiveEntry;
use abi::kernel::{
    BootInfo, Counters, Kcall, MemoryRequest, Privileges, ProcessInfo, Registers, StopState,
    TRAMPOLINE_TRAP,
};
use abi::role::Role;
use abi::trace::{LAB_ALLOCATES, LAB_ALLOCATION, LAB_STAGE, Refusal, Stage, Wanted};
use abi::{Endpoint, Errno, errno};
use core::arch::asm;

/// A kernel call with up to five arguments.
#[inline(always)]
pub fn kcall(call: Kcall, args: [u64; 5]) -> Result<u64, Errno> {
    let result: u64;
    // SAFETY: a kernel call changes rax, rcx and r11 and the memory that its arguments
    // point to; callers below pass pointers to memory they own exclusively.
    unsafe {
        asm!(
            "mov rcx, {entry}",
            "call rcx",
            entry = const TRAMPOLINE_TRAP as i64,
            inlateout("rax") call as u64 => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r8") args[3],
            in("r9") args[4],
            out("rcx") _,
            out("r11") _,
        );
    }
    errno::result_from_word(result)
}

fn unit(result: Result<u64, Errno>) -> Result<(), Errno> {
    result.map(|_| ())
}

fn out<T: Copy>(call: Kcall, first: u64, value: &mut T) -> Result<(), Errno> {
    unit(kcall(call, [first, value as *mut T as u64, 0, 0, 0]))
}

/// The beginning of a name, zero padded.
pub fn name<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let n = name.len().min(N);
    bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
    bytes
}

/// See [`Kcall::ProcCreate`].
pub fn proc_create(name: &str, role: Role) -> Result<Endpoint, Errno> {
    let name = u128::from_le_bytes(self::name(name));
    let (low, high) = (name as u64, (name >> 64) as u64);
    kcall(Kcall::ProcCreate, [low, high, role as u64, 0, 0]).map(|e| Endpoint(e as u32))
}

/// See [`Kcall::ProcFork`].
pub fn proc_fork(parent: Endpoint) -> Result<Endpoint, Errno> {
    kcall(Kcall::ProcFork, [parent.0 as u64, 0, 0, 0, 0]).map(|e| Endpoint(e as u32))
}

/// See [`Kcall::ProcExit`].
pub fn proc_exit(who: Endpoint) -> Result<(), Errno> {
    unit(kcall(Kcall::ProcExit, [who.0 as u64, 0, 0, 0, 0]))
}

/// See [`Kcall::ProcPriv`].
pub fn proc_priv(who: Endpoint, privileges: &Privileges) -> Result<(), Errno> {
    unit(kcall(
        Kcall::ProcPriv,
        [who.0 as u64, privileges as *const _ as u64, 0, 0, 0],
    ))
}

/// See [`Kcall::ProcStart`].
pub fn proc_start(who: Endpoint, rip: u64, rsp: u64, rdi: u64) -> Result<(), Errno> {
    unit(kcall(Kcall::ProcStart, [who.0 as u64, rip, rsp, rdi, 0]))
}

/// See [`Kcall::ProcStop`]. With [`StopState::Busy`] comes the server's endpoint.
pub fn proc_stop(who: Endpoint) -> Result<(StopState, Endpoint), Errno> {
    let word = kcall(Kcall::ProcStop, [who.0 as u64, 0, 0, 0, 0])?;
    let state = match word & 0xff {
        0 => StopState::Boundary,
        1 => StopState::Busy,
        2 => StopState::Faulting,
        3 => StopState::Entering,
        _ => return Err(Errno::EIO),
    };
    Ok((state, Endpoint((word >> 8) as u32)))
}

/// See [`Kcall::ProcResume`].
pub fn proc_resume(who: Endpoint, how: u64) -> Result<(), Errno> {
    unit(kcall(Kcall::ProcResume, [who.0 as u64, how, 0, 0, 0]))
}

/// See [`Kcall::ProcGetRegs`].
pub fn proc_get_regs(who: Endpoint) -> Result<Registers, Errno> {
    let mut regs = Registers::default();
    out(Kcall::ProcGetRegs, who.0 as u64, &mut regs)?;
    Ok(regs)
}

/// See [`Kcall::ProcSetRegs`].
pub fn proc_set_regs(who: Endpoint, regs: &Registers) -> Result<(), Errno> {
    unit(kcall(
        Kcall::ProcSetRegs,
        [who.0 as u64, regs as *const _ as u64, 0, 0, 0],
    ))
}

/// See [`Kcall::ProcGetFpu`]: bytes written (or the size, for an empty buffer).
pub fn proc_get_fpu(who: Endpoint, buffer: &mut [u8]) -> Result<usize, Errno> {
    let args = [
        who.0 as u64,
        buffer.as_mut_ptr() as u64,
        buffer.len() as u64,
        0,
        0,
    ];
    kcall(Kcall::ProcGetFpu, args).map(|n| n as usize)
}

/// See [`Kcall::ProcSetFpu`]: an empty slice resets the FPU.
pub fn proc_set_fpu(who: Endpoint, buffer: &[u8]) -> Result<(), Errno> {
    let args = [
        who.0 as u64,
        buffer.as_ptr() as u64,
        buffer.len() as u64,
        0,
        0,
    ];
    unit(kcall(Kcall::ProcSetFpu, args))
}

/// See [`Kcall::ProcInfo`].
pub fn proc_info(slot: usize) -> Result<ProcessInfo, Errno> {
    let mut info = ProcessInfo::default();
    out(Kcall::ProcInfo, slot as u64, &mut info)?;
    Ok(info)
}

/// See [`Kcall::GetStopped`].
pub fn get_stopped() -> Result<Endpoint, Errno> {
    kcall(Kcall::GetStopped, [0; 5]).map(|e| Endpoint(e as u32))
}

/// See [`Kcall::ProcPriority`].
pub fn proc_priority(who: Endpoint, priority: u64) -> Result<(), Errno> {
    unit(kcall(
        Kcall::ProcPriority,
        [who.0 as u64, priority, 0, 0, 0],
    ))
}

/// See [`Kcall::ProcName`].
pub fn proc_name(who: Endpoint, name: [u64; 2]) -> Result<(), Errno> {
    unit(kcall(
        Kcall::ProcName,
        [who.0 as u64, name[0], name[1], 0, 0],
    ))
}

/// See [`Kcall::SetAddressSpace`].
pub fn set_address_space(who: Endpoint, pml4: u64) -> Result<(), Errno> {
    unit(kcall(Kcall::SetAddressSpace, [who.0 as u64, pml4, 0, 0, 0]))
}

/// See [`Kcall::MemreqGet`].
pub fn memreq_get() -> Result<MemoryRequest, Errno> {
    let mut request = MemoryRequest::default();
    unit(kcall(
        Kcall::MemreqGet,
        [&mut request as *mut _ as u64, 0, 0, 0, 0],
    ))?;
    Ok(request)
}

/// See [`Kcall::MemreqReply`].
pub fn memreq_reply(requestor: Endpoint, result: Result<(), Errno>) -> Result<(), Errno> {
    let word = errno::result_to_word(result.map(|_| 0));
    unit(kcall(
        Kcall::MemreqReply,
        [requestor.0 as u64, word, 0, 0, 0],
    ))
}

/// See [`Kcall::FlushSelf`].
pub fn flush_self() {
    let _ = kcall(Kcall::FlushSelf, [0; 5]);
}

/// See [`Kcall::Time`]: ns since boot.
pub fn time_ns() -> u64 {
    kcall(Kcall::Time, [0; 5]).unwrap_or(0)
}

/// See [`Kcall::SetTimer`].
pub fn set_timer(deadline_ns: u64) -> Result<(), Errno> {
    unit(kcall(Kcall::SetTimer, [deadline_ns, 0, 0, 0, 0]))
}

/// See [`Kcall::IrqBind`].
pub fn irq_bind(line: u32) -> Result<(), Errno> {
    unit(kcall(Kcall::IrqBind, [line as u64, 0, 0, 0, 0]))
}

/// See [`Kcall::Log`].
pub fn log(text: &[u8]) {
    let _ = kcall(
        Kcall::Log,
        [text.as_ptr() as u64, text.len() as u64, 0, 0, 0],
    );
}

/// See [`Kcall::PowerOff`].
pub fn power_off(status: u64) -> ! {
    let _ = kcall(Kcall::PowerOff, [status, 0, 0, 0, 0]);
    loop {
        let _ = crate::ipc::receive_from(Endpoint::NONE);
    }
}

/// See [`Kcall::BootInfo`].
pub fn boot_info() -> Result<BootInfo, Errno> {
    let mut info = BootInfo::NONE;
    unit(kcall(
        Kcall::BootInfo,
        [&mut info as *mut _ as u64, 0, 0, 0, 0],
    ))?;
    Ok(info)
}

/// See [`Kcall::ModuleInfo`].
pub fn module_info(entry: usize) -> Result<ArchiveEntry, Errno> {
    let mut info = ArchiveEntry::default();
    out(Kcall::ModuleInfo, entry as u64, &mut info)?;
    Ok(info)
}

/// The archive entry of this name and its index.
pub fn module_find(name: &str) -> Result<(usize, ArchiveEntry), Errno> {
    for index in 0.. {
        let entry = module_info(index)?;
        if entry.name() == name {
            return Ok((index, entry));
        }
    }
    Err(Errno::ENOENT)
}

/// See [`Kcall::ModuleRead`].
pub fn module_read(entry: usize, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let args = [
        entry as u64,
        offset,
        buffer.as_mut_ptr() as u64,
        buffer.len() as u64,
        0,
    ];
    kcall(Kcall::ModuleRead, args).map(|n| n as usize)
}

/// See [`Kcall::SetLinuxRoutes`].
pub fn set_linux_routes(routes: &[u8; 512]) -> Result<(), Errno> {
    unit(kcall(
        Kcall::SetLinuxRoutes,
        [routes.as_ptr() as u64, 0, 0, 0, 0],
    ))
}

/// See [`Kcall::Counters`].
pub fn counters() -> Result<Counters, Errno> {
    let mut counters = Counters::default();
    unit(kcall(
        Kcall::Counters,
        [&mut counters as *mut _ as u64, 0, 0, 0, 0],
    ))?;
    Ok(counters)
}

/// See [`Kcall::CommandLine`]: bytes copied.
pub fn command_line(buffer: &mut [u8]) -> Result<usize, Errno> {
    let args = [buffer.as_mut_ptr() as u64, buffer.len() as u64, 0, 0, 0];
    kcall(Kcall::CommandLine, args).map(|n| n as usize)
}

/// See [`Kcall::Decide`].
pub fn decide(count: usize) -> usize {
    kcall(Kcall::Decide, [count as u64, 0, 0, 0, 0]).map_or(0, |n| n as usize)
}

/// Where a frame is that the laboratory took away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restored {
    /// It is there.
    There,
    /// It stays away.
    Away,
    /// It will come, but is not there yet.
    Later,
}

/// See [`Kcall::FrameRestore`].
pub fn frame_restore(physical: u64) -> Restored {
    match kcall(Kcall::FrameRestore, [physical, 0, 0, 0, 0]) {
        Ok(1) => Restored::There,
        Ok(2) => Restored::Later,
        _ => Restored::Away,
    }
}

/// See [`abi::trace::LAB_STAGE`].
pub fn exec_stage(target: Endpoint, stage: Stage, address: u64, len: u64) {
    let target = u64::from(target.0);
    let args = [LAB_STAGE, target, stage as u64, address, len];
    // Where nobody looks nothing is lost.
    let _ = kcall(Kcall::Lab, args);
}

/// Whether a laboratory wants to know of allocations ([`abi::trace::LAB_ALLOCATES`]).
pub fn allocations_are_watched() -> bool {
    kcall(Kcall::Lab, [LAB_ALLOCATES, 0, 0, 0, 0]) == Ok(1)
}

/// Memory is about to be allocated, and a laboratory watches: whether it is refused
/// ([`abi::trace::LAB_ALLOCATION`]).
pub fn allocation(wanted: Wanted, bytes: u64) -> Refusal {
    let said = kcall(Kcall::Lab, [LAB_ALLOCATION, wanted as u64, bytes, 0, 0]);
    said.map_or(Refusal::No, Refusal::of)
}

/// See [`Kcall::Yield`].
pub fn yield_now() {
    let _ = kcall(Kcall::Yield, [0; 5]);
}

/// See [`Kcall::Null`].
pub fn null() {
    let _ = kcall(Kcall::Null, [0; 5]);
}
