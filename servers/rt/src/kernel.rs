//! Kernel calls ([`abi::kernel::calls`]), and one function for each that servers make.

use abi::boot::ArchiveEntry;
use abi::kernel::calls::{self, Call, Sound};
use abi::kernel::{
    BootInfo, Counters, In, InBytes, Kcall, MemoryRequest, Out, OutBytes, Privileges, ProcessInfo,
    Registers, StopState, TRAMPOLINE_TRAP, answered,
};
use abi::role::Role;
use abi::trace::{Refusal, Restored, Stage, Wanted};
use abi::{Endpoint, Errno};
use core::arch::asm;

/// The trap of a kernel call, with these words in rdi rsi rdx r8 r9.
macro_rules! trap {
    ($call:expr $(, $register:tt $word:expr)*) => {{
        let result: u64;
        asm!(
            "mov rcx, {entry}",
            "call rcx",
            entry = const TRAMPOLINE_TRAP as i64,
            inlateout("rax") $call as u64 => result,
            $( in($register) $word, )*
            out("rcx") _,
            out("r11") _,
        );
        result
    }};
}

/// Kernel call `call` with the first `count` of `words`: what it leaves in rax.
///
/// # Safety
/// Memory of the caller's that the kernel writes when it hears these words is the caller's to change, and what
/// it registers stays.
#[inline(always)]
pub unsafe fn trap(call: Kcall, count: usize, words: &[u64]) -> u64 {
    // SAFETY: a kernel call changes rax, rcx and r11 and the memory that its arguments point to, which the
    // caller answers for.
    unsafe {
        match (count, words) {
            (0, _) => trap!(call),
            (1, [a, ..]) => trap!(call, "rdi" * a),
            (2, [a, b, ..]) => trap!(call, "rdi" * a, "rsi" * b),
            (3, [a, b, c, ..]) => trap!(call, "rdi" * a, "rsi" * b, "rdx" * c),
            (4, [a, b, c, d, ..]) => trap!(call, "rdi" * a, "rsi" * b, "rdx" * c, "r8" * d),
            (_, [a, b, c, d, e, ..]) => {
                trap!(call, "rdi" * a, "rsi" * b, "rdx" * c, "r8" * d, "r9" * e)
            }
            _ => Errno::EINVAL.to_word(),
        }
    }
}

/// Makes a kernel call.
#[inline(always)]
pub fn call<C: Sound>(call: C) -> Result<C::Answer, Errno> {
    // SAFETY: that is what [`Sound`] says: it writes only what it borrows for that.
    unsafe { call_with(call) }
}

/// Makes a kernel call whose arguments say where the kernel writes.
///
/// # Safety
/// What the call copies into is the caller's to change, and what it registers stays.
#[inline(always)]
pub unsafe fn call_with<C: Call>(call: C) -> Result<C::Answer, Errno> {
    // SAFETY: the caller's promise.
    answered(unsafe { trap(C::CALL, C::COUNT, &call.words()) })
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
    call(calls::ProcCreate {
        name: self::name(name),
        role,
    })
}

/// See [`Kcall::ProcFork`].
pub fn proc_fork(parent: Endpoint) -> Result<Endpoint, Errno> {
    call(calls::ProcFork { parent })
}

/// See [`Kcall::ProcExit`].
pub fn proc_exit(who: Endpoint) -> Result<(), Errno> {
    call(calls::ProcExit { who })
}

/// See [`Kcall::ProcPriv`].
pub fn proc_priv(who: Endpoint, privileges: &Privileges) -> Result<(), Errno> {
    let privileges = In::of(privileges);
    call(calls::ProcPriv { who, privileges })
}

/// See [`Kcall::ProcStart`].
pub fn proc_start(who: Endpoint, rip: u64, rsp: u64, rdi: u64) -> Result<(), Errno> {
    call(calls::ProcStart { who, rip, rsp, rdi })
}

/// See [`Kcall::ProcStop`].
pub fn proc_stop(who: Endpoint) -> Result<(StopState, Endpoint), Errno> {
    call(calls::ProcStop { who })
}

/// See [`Kcall::ProcResume`].
pub fn proc_resume(who: Endpoint, how: u64) -> Result<(), Errno> {
    call(calls::ProcResume { who, how })
}

/// See [`Kcall::ProcGetRegs`].
pub fn proc_get_regs(who: Endpoint) -> Result<Registers, Errno> {
    let mut regs = Registers::default();
    let registers = Out::to(&mut regs);
    call(calls::ProcGetRegs { who, registers })?;
    Ok(regs)
}

/// See [`Kcall::ProcSetRegs`].
pub fn proc_set_regs(who: Endpoint, regs: &Registers) -> Result<(), Errno> {
    let registers = In::of(regs);
    call(calls::ProcSetRegs { who, registers })
}

/// See [`Kcall::ProcGetFpu`]: bytes written (or the size, for an empty buffer).
pub fn proc_get_fpu(who: Endpoint, buffer: &mut [u8]) -> Result<usize, Errno> {
    let area = OutBytes(buffer);
    call(calls::ProcGetFpu { who, area })
}

/// See [`Kcall::ProcSetFpu`]: an empty slice resets the FPU.
pub fn proc_set_fpu(who: Endpoint, buffer: &[u8]) -> Result<(), Errno> {
    let area = InBytes(buffer);
    call(calls::ProcSetFpu { who, area })
}

/// See [`Kcall::ProcInfo`].
pub fn proc_info(slot: usize) -> Result<ProcessInfo, Errno> {
    let mut process = ProcessInfo::default();
    let info = Out::to(&mut process);
    call(calls::ProcInfo { slot, info })?;
    Ok(process)
}

/// See [`Kcall::GetStopped`].
pub fn get_stopped() -> Result<Endpoint, Errno> {
    call(calls::GetStopped {})
}

/// See [`Kcall::ProcPriority`].
pub fn proc_priority(who: Endpoint, priority: u64) -> Result<(), Errno> {
    call(calls::ProcPriority { who, priority })
}

/// See [`Kcall::ProcName`].
pub fn proc_name(who: Endpoint, name: [u8; 16]) -> Result<(), Errno> {
    call(calls::ProcName { who, name })
}

/// See [`Kcall::SetAddressSpace`].
pub fn set_address_space(who: Endpoint, table: u64) -> Result<(), Errno> {
    call(calls::SetAddressSpace { who, table })
}

/// See [`Kcall::MemreqGet`].
pub fn memreq_get() -> Result<MemoryRequest, Errno> {
    let mut parked = MemoryRequest::default();
    let request = Out::to(&mut parked);
    call(calls::MemreqGet { request })?;
    Ok(parked)
}

/// See [`Kcall::MemreqReply`].
pub fn memreq_reply(requestor: Endpoint, result: Result<(), Errno>) -> Result<(), Errno> {
    call(calls::MemreqReply { requestor, result })
}

/// See [`Kcall::Time`]: ns since boot.
pub fn time_ns() -> u64 {
    call(calls::Time {}).unwrap_or(0)
}

/// See [`Kcall::SetTimer`].
pub fn set_timer(deadline: u64) -> Result<(), Errno> {
    call(calls::SetTimer { deadline })
}

/// See [`Kcall::IrqBind`].
pub fn irq_bind(line: u32) -> Result<(), Errno> {
    call(calls::IrqBind { line })
}

/// See [`Kcall::Log`].
pub fn log(text: &[u8]) {
    let text = InBytes(text);
    let _ = call(calls::Log { text });
}

/// See [`Kcall::PowerOff`].
pub fn power_off(status: u64) -> ! {
    let _ = call(calls::PowerOff { status });
    loop {
        let _ = crate::ipc::receive_from(Endpoint::NONE);
    }
}

/// See [`Kcall::BootInfo`].
pub fn boot_info() -> Result<BootInfo, Errno> {
    let mut found = BootInfo::NONE;
    let info = Out::to(&mut found);
    call(calls::BootInfo { info })?;
    Ok(found)
}

/// See [`Kcall::ModuleInfo`].
pub fn module_info(entry: usize) -> Result<ArchiveEntry, Errno> {
    let mut module = ArchiveEntry::default();
    let info = Out::to(&mut module);
    call(calls::ModuleInfo { entry, info })?;
    Ok(module)
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
    let buffer = OutBytes(buffer);
    call(calls::ModuleRead {
        entry,
        offset,
        buffer,
    })
}

/// See [`Kcall::SetLinuxRoutes`].
pub fn set_linux_routes(routes: &[u8; 512]) -> Result<(), Errno> {
    let routes = In::of(routes);
    call(calls::SetLinuxRoutes { routes })
}

/// See [`Kcall::Counters`].
pub fn counters() -> Result<Counters, Errno> {
    let mut since_boot = Counters::default();
    let counters = Out::to(&mut since_boot);
    call(calls::Counters { counters })?;
    Ok(since_boot)
}

/// See [`Kcall::CommandLine`]: bytes copied.
pub fn command_line(buffer: &mut [u8]) -> Result<usize, Errno> {
    let buffer = OutBytes(buffer);
    call(calls::CommandLine { buffer })
}

/// See [`Kcall::Decide`].
pub fn decide(count: usize) -> usize {
    call(calls::Decide { count }).unwrap_or(0)
}

/// See [`Kcall::FrameRestore`].
pub fn frame_restore(physical: u64) -> Restored {
    call(calls::FrameRestore { physical }).unwrap_or(Restored::Away)
}

/// See [`Kcall::LabStage`].
pub fn exec_stage(target: Endpoint, stage: Stage, address: u64, len: u64) {
    // Where nobody looks nothing is lost.
    let _ = call(calls::LabStage {
        target,
        stage,
        address,
        len,
    });
}

/// Whether a laboratory wants to know of allocations ([`Kcall::LabAllocates`]).
pub fn allocations_are_watched() -> bool {
    call(calls::LabAllocates {}).unwrap_or(false)
}

/// Memory is about to be allocated, and a laboratory watches: whether it is refused
/// ([`Kcall::LabAllocation`]).
pub fn allocation(wanted: Wanted, bytes: u64) -> Refusal {
    call(calls::LabAllocation { wanted, bytes }).unwrap_or(Refusal::No)
}

/// See [`Kcall::Null`].
pub fn null() {
    let _ = call(calls::Null {});
}
