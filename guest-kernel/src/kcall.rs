//! Kernel calls: decoding, permission, and the short ones themselves.

use crate::arch::{fpu, layout, machine};
use crate::copy::{self, Operand};
use crate::process::{self, Calls, FIXED_FLAG, MAX_PROCESSES, Process};
use crate::sched::{self, block, counters, unblock};
use crate::transfer::{self, Outcome, Stop};
use crate::{boot, clock, ipc, lab, memory, trap};
use abi::kernel::{Kcall, Privileges, ProcessInfo, Registers, StopState, USER_END, resume, rts};
use abi::role::{Role, Roles};
use abi::trace::{Decision, Kind};
use abi::{Class, Endpoint, Errno};

/// Serves the call in `caller`'s registers.
pub fn dispatch(caller: &mut Process) {
    let number = caller.regs.rax;
    match serve(caller, number) {
        Ok(value) => caller.regs.rax = value,
        Err(Stop::Failed(errno)) => caller.regs.rax = errno.to_word(),
        Err(Stop::Parked) => {}
    }
}

/// Calls are known by number; each arm of [`serve`] names one.
macro_rules! calls {
    ($number:expr, $caller:expr, { $($name:ident => $body:expr),* $(,)? }) => {
        match $number {
            $(n if n == Kcall::$name as u64 => {
                if $caller.privileges.kcalls & Kcall::$name.bit() == 0 {
                    return Err(Errno::EPERM.into());
                }
                $body
            })*
            _ => Err(Errno::ENOSYS.into()),
        }
    };
}

fn serve(caller: &mut Process, number: u64) -> Outcome {
    let r = &caller.regs;
    let (who, [a1, a2, a3, a4, a5]) = (Endpoint(r.rdi as u32), [r.rdi, r.rsi, r.rdx, r.r8, r.r9]);
    // The two that everybody may.
    if number == Kcall::Null as u64 {
        return Ok(0);
    }
    if number == Kcall::Yield as u64 {
        caller.slice_end = 0;
        return Ok(0);
    }
    calls!(number, caller, {
        SafeCopy => transfer::safecopy(caller, a1),
        SafeCopyVector => transfer::safecopy_vector(caller, a1, a2),
        SafeMemset => transfer::safe_memset(caller, who, a2 as i32, a3, a4, a5 as u8),
        VirCopy => transfer::vircopy(caller, a1),
        Memset => transfer::memset(caller, a1 as u32, a2, a3, a4 as u8, a5),
        SetGrants => {
            caller.grants = (a1, a2);
            Ok(0)
        },
        Umap => umap(caller, who, a2),
        SetInbox => {
            caller.inbox = a1;
            Ok(0)
        },
        Time => Ok(clock::now()),
        SetTimer => {
            caller.deadline = a1;
            if a1 != 0 {
                clock::arm(a1);
            }
            Ok(0)
        },
        ProcCreate => create(caller, name(a1, a2), a3),
        ProcFork => fork(who),
        ProcExit => exit(caller, who),
        ProcPriv => set_privileges(caller, who, a2),
        ProcStart => start(caller, who, a2, a3, a4),
        ProcStop => stop(caller, who),
        ProcResume => resume(caller, who, a2),
        ProcGetRegs => get_regs(caller, who, a2),
        ProcSetRegs => set_regs(caller, who, a2),
        ProcGetFpu => get_fpu(caller, who, a2, a3),
        ProcSetFpu => set_fpu(caller, who, a2, a3),
        ProcInfo => info(caller, a1, a2),
        ProcPriority => {
            sched::set_priority(subject(caller, who)?, a2.min(7) as u8);
            Ok(0)
        },
        ProcName => {
            let process = subject(caller, who)?;
            process.name = name(a2, a3);
            lab::named(process);
            Ok(0)
        },
        GetStopped => next_flagged(|p| core::mem::take(&mut p.stopped_unread)),
        SetAddressSpace => set_space(who, a2),
        MemreqGet => transfer::next_memory_request(caller, a1),
        MemreqReply => transfer::memory_request_done(who, a2),
        FlushSelf => {
            sched::reload_space();
            Ok(0)
        },
        IrqBind => bind(caller, a1),
        Log => log(caller, a1, a2),
        PowerOff => lab::power_off(a1),
        BootInfo => transfer::give(caller, a1, boot::info()),
        ModuleRead => {
            let read = boot::module_read(caller.cr3, a1, a2, a3, a4);
            transfer::own(caller, (a3, a4, true), read)
        },
        ModuleInfo => {
            transfer::give(caller, a2, &boot::module(a1)?)
        },
        SetLinuxRoutes => set_routes(caller, a1),
        Counters => {
            transfer::give(caller, a1, counters())
        },
        Decide => {
            let who = caller.endpoint;
            Ok(lab::decide(Decision::Task, a1 as usize, |_| who) as u64)
        },
        FrameRestore => {
            lab::restore(a1);
            Ok(lab::withdrawn(a1))
        },
        CommandLine => {
            let line = boot::command_line();
            let n = line.len().min(a2 as usize);
            transfer::give_bytes(caller, a1, &line[..n])
        },
        Lab => Ok(lab::hear(caller, [a1, a2, a3, a4, a5])?),
    })
}

fn name(low: u64, high: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&high.to_le_bytes());
    bytes
}

/// Who makes services, and has all power over them.
const MAKERS: Roles = Roles::VM.or(Roles::RS);

fn create(caller: &Process, name: [u8; 16], role: u64) -> Outcome {
    let role = Role::from_word(role).ok_or(Errno::EINVAL)?;
    if role != Role::Program && !MAKERS.admits(caller.endpoint) {
        return Err(Errno::EPERM.into());
    }
    Ok(process::create(name, role)?.endpoint.0 as u64)
}

/// The process that `caller` wants to do something with: a program, or whatever it is if the
/// caller makes services.
fn subject(caller: &Process, who: Endpoint) -> Result<&'static mut Process, Errno> {
    let process = process::find(who)?;
    if process.linux() || MAKERS.admits(caller.endpoint) {
        Ok(process)
    } else {
        Err(Errno::EPERM)
    }
}

fn fork(parent: Endpoint) -> Outcome {
    let parent = process::find(parent)?;
    if !parent.linux() {
        return Err(Errno::EPERM.into());
    }
    sched::release_of(parent);
    let child = process::create(parent.name, Role::Program)?;
    child.regs = Registers {
        rax: 0,
        orig_rax: u64::MAX,
        ..parent.regs
    };
    child.priority = parent.priority;
    fpu::copy(parent.fpu, child.fpu);
    Ok(child.endpoint.0 as u64)
}

fn exit(caller: &Process, who: Endpoint) -> Outcome {
    let process = subject(caller, who)?;
    if core::ptr::eq(process, caller) {
        return Err(Errno::EINVAL.into());
    }
    ipc::disconnect(process);
    for other in (1..process::used()).map(process::slot) {
        // VM's answer about a dead target will come; the requestor only learns of it there.
        if other
            .parked
            .is_some_and(|parked| parked.target == who && !parked.fetched)
        {
            other.parked = None;
            other.regs.rax = Errno::ESRCH.to_word();
            unblock(other, rts::MEMREQ);
        }
    }
    lab::note(Kind::Exit, || [who.0 as u64, 0, 0, 0, 0, 0]);
    sched::forget(process);
    process.parked = None;
    process.deadline = 0;
    process.serving = 0;
    process.cr3 = 0;
    process.generation = process.generation.wrapping_add(1);
    process.endpoint = process::NOBODY;
    Ok(0)
}

fn start(caller: &Process, who: Endpoint, rip: u64, rsp: u64, rdi: u64) -> Outcome {
    if rip >= USER_END {
        return Err(Errno::EINVAL.into());
    }
    let process = subject(caller, who)?;
    ipc::withdraw(process);
    sched::discard(process);
    process.set_entry(rip, rsp, rdi);
    process.peer = Endpoint::NONE;
    process.tell_when_stopped = false;
    process.stopped_unread = false;
    process.entering = false;
    if process.linux() {
        process.calls = Calls::Linux;
    }
    unblock(process, !(rts::NO_SPACE | rts::FREE));
    Ok(0)
}

#[inline(never)]
fn resume(caller: &Process, who: Endpoint, how: u64) -> Outcome {
    let process = subject(caller, who)?;
    process.tell_when_stopped = how & resume::EXIT != 0;
    process.stopped_unread = false;
    if process.linux() {
        process.calls = match how & resume::ENTRY {
            0 => Calls::Linux,
            _ => Calls::Traced,
        };
    }
    if core::mem::take(&mut process.entering) {
        trap::enter_call(process);
    }
    // What is to stop at the end of a call is stopped already: until then it waits anyway.
    if how & resume::EXIT == 0 {
        unblock(process, rts::STOPPED);
    }
    Ok(0)
}

fn stop(caller: &Process, who: Endpoint) -> Outcome {
    let process = subject(caller, who)?;
    block(process, rts::STOPPED);
    if process.entering {
        return Ok(StopState::Entering as u64);
    }
    let event = process.flags & (rts::FAULTING | rts::SENDING) != 0;
    if event && process.class == Class::Exception {
        return Ok(StopState::Busy as u64 | (process.peer.0 as u64) << 8);
    }
    if event && process.class == Class::PageFault {
        return Ok(StopState::Faulting as u64);
    }
    if process.flags & rts::SENDING != 0 {
        ipc::withdraw(process);
        process.regs.rax = Errno::ERESTARTNOINTR.to_word();
    } else if process.flags & rts::AWAIT_REPLY != 0 {
        process.tell_when_stopped = true;
        return Ok(StopState::Busy as u64 | (process.peer.0 as u64) << 8);
    }
    Ok(StopState::Boundary as u64)
}

#[inline(never)]
fn get_regs(caller: &mut Process, who: Endpoint, address: u64) -> Outcome {
    let process = subject(caller, who)?;
    sched::release_of(process);
    // A copy: the process may be the caller.
    let mut regs = process.regs;
    regs.rflags |= FIXED_FLAG;
    transfer::give(caller, address, &regs)
}

#[inline(never)]
fn set_privileges(caller: &mut Process, who: Endpoint, address: u64) -> Outcome {
    let privileges: Privileges = transfer::own_struct(caller, address)?;
    let process = process::find(who)?;
    // A program has none, whoever asks.
    if process.linux() || !MAKERS.admits(caller.endpoint) {
        return Err(Errno::EPERM.into());
    }
    process.privileges = privileges;
    Ok(0)
}

#[inline(never)]
fn set_routes(caller: &mut Process, address: u64) -> Outcome {
    let routes: [u8; 512] = transfer::own_struct(caller, address)?;
    trap::set_routes(&routes);
    Ok(0)
}

#[inline(never)]
fn set_regs(caller: &mut Process, who: Endpoint, address: u64) -> Outcome {
    let regs: Registers = transfer::own_struct(caller, address)?;
    let canonical = |address: u64| !(1 << 47..!0 << 47).contains(&address);
    // Behind the user's half it will fault.
    if ![regs.rip, regs.fs_base, regs.gs_base]
        .into_iter()
        .all(canonical)
    {
        return Err(Errno::EINVAL.into());
    }
    let process = subject(caller, who)?;
    sched::release_of(process);
    process.regs = regs;
    process.set_rflags(regs.rflags);
    process.step_over();
    Ok(0)
}

#[inline(never)]
fn get_fpu(caller: &mut Process, who: Endpoint, address: u64, len: u64) -> Outcome {
    let process = subject(caller, who)?;
    sched::release_of(process);
    let bytes = fpu::bytes_of(process.fpu);
    if len == 0 {
        return Ok(bytes.len() as u64);
    }
    let n = bytes.len().min(len as usize);
    transfer::give_bytes(caller, address, &bytes[..n])
}

#[inline(never)]
fn set_fpu(caller: &mut Process, who: Endpoint, address: u64, len: u64) -> Outcome {
    let process = subject(caller, who)?;
    sched::release_of(process);
    if len == 0 {
        fpu::reset(process.fpu);
        return Ok(0);
    }
    // A static, not the stack: the area of a processor with AMX has eleven KiB.
    static mut BUFFER: [u8; 16384] = [0; 16384];
    // SAFETY: single thread of control; not re-entered.
    let buffer = unsafe { &mut *(&raw mut BUFFER) };
    let n = (len as usize).min(buffer.len());
    transfer::own_bytes(caller, address, &mut buffer[..n])?;
    fpu::write(process.fpu, &buffer[..n])?;
    Ok(0)
}

#[inline(never)]
fn info(caller: &mut Process, slot: u64, address: u64) -> Outcome {
    if slot as usize >= MAX_PROCESSES {
        return Err(Errno::EINVAL.into());
    }
    let p = process::slot(slot as usize);
    if slot == 0 || p.flags & rts::FREE != 0 {
        return Err(Errno::ENOENT.into());
    }
    let peer = if p.flags & rts::RECEIVING != 0 {
        p.filter
    } else {
        p.peer
    };
    let info = ProcessInfo {
        endpoint: p.endpoint.0,
        flags: p.flags,
        peer: peer.0,
        priority: p.priority as u32,
        cpu_ns: clock::to_ns(p.ticks),
        cr3: p.cr3,
        name: p.name,
    };
    transfer::give(caller, address, &info)
}

fn next_flagged(mut take: impl FnMut(&mut Process) -> bool) -> Outcome {
    let mut living = (1..process::used())
        .map(process::slot)
        .filter(|p| p.flags & rts::FREE == 0);
    match living.find_map(|p| take(p).then_some(p.endpoint)) {
        Some(endpoint) => Ok(endpoint.0 as u64),
        None => Err(Errno::ENOENT.into()),
    }
}

fn set_space(who: Endpoint, pml4: u64) -> Outcome {
    let process = process::find(who)?;
    if !pml4.is_multiple_of(abi::PAGE) || memory::ram_range(pml4, abi::PAGE).is_err() {
        return Err(Errno::EINVAL.into());
    }
    process.cr3 = pml4;
    if pml4 == 0 {
        block(process, rts::NO_SPACE);
        return Ok(0);
    }
    for index in 256..512 {
        let entry = boot::task_entry(index as usize, process.linux());
        memory::write_word(pml4 + index * 8, entry);
    }
    if core::ptr::eq(process, sched::current()) {
        sched::reload_space();
    }
    unblock(process, rts::NO_SPACE);
    Ok(0)
}

fn umap(caller: &Process, who: Endpoint, address: u64) -> Outcome {
    let process = process::find_or_self(caller.index(), who)?;
    let operand = Operand {
        cr3: Some(process.cr3),
        address,
    };
    Ok(copy::translate(&operand, address, false)
        .ok_or(Errno::EFAULT)?
        .0)
}

fn bind(caller: &Process, line: u64) -> Outcome {
    if line >= layout::LINES || caller.privileges.irqs >> line & 1 == 0 {
        return Err(Errno::EPERM.into());
    }
    trap::bind_line(line as u32, caller.endpoint);
    Ok(0)
}

#[inline(never)]
fn log(caller: &mut Process, address: u64, len: u64) -> Outcome {
    let mut text = [0; 512];
    let n = (len as usize).min(text.len());
    transfer::own_bytes(caller, address, &mut text[..n])?;
    machine::log(&[&text[..n]]);
    Ok(0)
}
