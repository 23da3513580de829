//! Kernel calls: decoding, permission, and the short ones themselves.

use crate::arch::{fpu, gate, machine};
use crate::copy::{self, Operand};
use crate::counters::COUNTERS;
use crate::global::Single;
use crate::process::{self, FIXED_FLAG, MAX_PROCESSES, Process};
use crate::sched::{self, block, unblock};
use crate::transfer::{self, Outcome, Stop};
use crate::{clock, facts, lab, lifecycle, lines, linux, memory, memreq};
use abi::kernel::calls::{self, heard};
use abi::kernel::{Answer, At, Bytes, Call, Kcall, LINES, Privileges, ProcessInfo, Registers, rts};
use abi::message::{Fields, WORDS};
use abi::role::{Role, Roles};
use abi::trace::{self, Decision};
use abi::{Endpoint, Errno};
use core::cell::Cell;

/// Serves the call in `caller`'s registers.
pub fn dispatch(caller: &'static Process) {
    let number = caller.regs.rax.get();
    match serve(caller, number) {
        Ok(value) => caller.regs.rax.set(value),
        Err(Stop::Failed(errno)) => caller.regs.rax.set(errno.to_word()),
        Err(Stop::Parked) => {}
    }
}

/// Each arm names a call and what it says (`heard`), and is what the call is answered with.
macro_rules! calls {
    ($number:expr, $caller:expr, {
        $($name:ident { $($field:ident),* $(,)? } => $body:expr),* $(,)?
    }) => {
        match $number {
            $(n if n == Kcall::$name as u64 => {
                if $caller.privileges.kcalls.get() & Kcall::$name.bit() == 0 {
                    return Err(Errno::EPERM.into());
                }
                let heard: Option<heard::$name> = Fields::take(&words($caller), 0);
                let heard::$name { $($field),* } = heard.ok_or(Errno::EINVAL)?;
                // One of them ends the machine.
                #[allow(unreachable_code, unused_variables, clippy::diverging_sub_expression)]
                let answer: <calls::$name as Call>::Answer = $body;
                #[allow(unreachable_code)]
                Ok(answer.to_register())
            })*
            _ => Err(Errno::ENOSYS.into()),
        }
    };
}

/// What a call says.
#[inline(always)]
fn words(caller: &Process) -> [u64; WORDS] {
    let r = &caller.regs;
    let [a, b, c, d, e] = [&r.rdi, &r.rsi, &r.rdx, &r.r8, &r.r9].map(Cell::get);
    [a, b, c, d, e, 0, 0]
}

fn serve(caller: &'static Process, number: u64) -> Outcome<u64> {
    // The two that everybody may.
    if number == Kcall::Null as u64 {
        return Ok(0);
    }
    if number == Kcall::Yield as u64 {
        caller.slice_end.set(0);
        return Ok(0);
    }
    calls!(number, caller, {
        SafeCopy { copy } => transfer::safecopy(caller, copy)?,
        SafeCopyVector { copies } => transfer::safecopy_vector(caller, copies)?,
        SafeMemset { granter, grant, offset, len, pattern } => {
            transfer::safe_memset(caller, (granter, grant), offset, len, pattern)?
        },
        VirCopy { copy } => transfer::vircopy(caller, copy)?,
        Memset { who, address, len, pattern, flags } => {
            transfer::memset(caller, (who, address), len, pattern, flags)?
        },
        SetGrants { table } => {
            caller.grants.set(table.at(0).address);
            caller.grant_count.set(table.count);
        },
        Umap { who, address } => umap(caller, who, address)?,
        SetInbox { inbox } => caller.inbox.set(inbox.address),
        Time {} => clock::now(),
        SetTimer { deadline } => {
            caller.deadline.set(deadline);
            if deadline != 0 {
                clock::arm(deadline);
            }
        },
        ProcCreate { name, role } => create(caller, name, role)?,
        ProcFork { parent } => lifecycle::fork(process::find(parent)?)?,
        ProcExit { who } => {
            let process = subject(caller, who)?;
            if core::ptr::eq(process, caller) {
                return Err(Errno::EINVAL.into());
            }
            lifecycle::exit(process);
        },
        ProcPriv { who, privileges } => set_privileges(caller, who, privileges)?,
        ProcStart { who, rip, rsp, rdi } => lifecycle::start(subject(caller, who)?, rip, rsp, rdi)?,
        ProcStop { who } => lifecycle::stop(subject(caller, who)?),
        ProcResume { who, how } => lifecycle::resume(subject(caller, who)?, how),
        ProcGetRegs { who, registers } => get_regs(caller, who, registers)?,
        ProcSetRegs { who, registers } => set_regs(caller, who, registers)?,
        ProcGetFpu { who, area } => get_fpu(caller, who, area)?,
        ProcSetFpu { who, area } => set_fpu(caller, who, area)?,
        ProcInfo { slot, info } => tell(caller, slot, info)?,
        ProcPriority { who, priority } => {
            sched::set_priority(subject(caller, who)?, priority.min(7) as u8);
        },
        ProcName { who, name } => {
            let process = subject(caller, who)?;
            process.name.set(name);
            lab::named(process);
        },
        GetStopped {} => next_stopped()?,
        SetAddressSpace { who, table } => set_space(who, table)?,
        MemreqGet { request } => memreq::next_memory_request(caller, request)?,
        MemreqReply { requestor, result } => memreq::memory_request_done(requestor, result)?,
        FlushSelf {} => sched::reload_space(),
        IrqBind { line } => bind(caller, line)?,
        Log { text } => log(caller, text)?,
        PowerOff { status } => lab::power_off(status),
        BootInfo { info } => transfer::give(caller, info, facts::info())?,
        ModuleRead { entry, offset, buffer } => {
            let read = facts::module_read(caller.cr3.get(), entry, offset, buffer);
            transfer::own(caller, (buffer.address, buffer.len, true), read)?
        },
        ModuleInfo { entry, info } => transfer::give(caller, info, &facts::module(entry)?)?,
        SetLinuxRoutes { routes } => linux::set_routes(&transfer::own_struct(caller, routes)?),
        Counters { counters } => transfer::give(caller, counters, &COUNTERS.get())?,
        Decide { count } => {
            let who = caller.endpoint.get();
            lab::decide(Decision::Task, count, |_| who)
        },
        FrameRestore { physical } => {
            lab::restore(physical);
            lab::restored(physical)
        },
        CommandLine { buffer } => {
            let line = facts::command_line();
            let n = line.len().min(buffer.len as usize);
            transfer::give_bytes(caller, buffer.address, &line[..n])?
        },
        LabServing { serving } => caller.serving.set(serving.address),
        LabStage { target, stage, address, len } => {
            lab::note(|| trace::Exec { who: caller.endpoint.get(), target, stage, address, len });
        },
        LabAllocates {} => lab::watches_allocations(),
        LabAllocation { wanted, bytes } => lab::allocation(caller, wanted, bytes),
    })
}

/// Who makes services, and has all power over them.
const MAKERS: Roles = Roles::VM.or(Roles::RS);

fn create(caller: &Process, name: [u8; 16], role: Role) -> Outcome<Endpoint> {
    if role != Role::Program && !MAKERS.admits(caller.endpoint.get()) {
        return Err(Errno::EPERM.into());
    }
    let process = lifecycle::create(name, role)?;
    Ok(process.endpoint.get())
}

/// The process that `caller` wants to do something with: a program, or whatever it is if the
/// caller makes services.
fn subject(caller: &Process, who: Endpoint) -> Result<&'static Process, Errno> {
    let process = process::find(who)?;
    if process.linux() || MAKERS.admits(caller.endpoint.get()) {
        Ok(process)
    } else {
        Err(Errno::EPERM)
    }
}

#[inline(never)]
fn get_regs(caller: &'static Process, who: Endpoint, registers: At<Registers>) -> Outcome {
    let process = subject(caller, who)?;
    sched::release_of(process);
    // A copy: the process may be the caller.
    let mut regs = process.regs.get();
    regs.rflags |= FIXED_FLAG;
    transfer::give(caller, registers, &regs)
}

#[inline(never)]
fn set_privileges(caller: &'static Process, who: Endpoint, at: At<Privileges>) -> Outcome {
    let privileges = transfer::own_struct(caller, at)?;
    let process = process::find(who)?;
    // A program has none, whoever asks.
    if process.linux() || !MAKERS.admits(caller.endpoint.get()) {
        return Err(Errno::EPERM.into());
    }
    process.privileges.set(privileges);
    Ok(())
}

#[inline(never)]
fn set_regs(caller: &'static Process, who: Endpoint, registers: At<Registers>) -> Outcome {
    let regs = transfer::own_struct(caller, registers)?;
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
    process.regs.set(regs);
    process.set_rflags(regs.rflags);
    process.step_over();
    Ok(())
}

#[inline(never)]
fn get_fpu(caller: &'static Process, who: Endpoint, area: Bytes) -> Outcome<usize> {
    let process = subject(caller, who)?;
    sched::release_of(process);
    let bytes = process.fpu.get().bytes();
    if area.len == 0 {
        return Ok(bytes.len());
    }
    let n = bytes.len().min(area.len as usize);
    transfer::give_cells(caller, area.address, &bytes[..n])
}

/// An FPU state on its way into a process.
static NEW_STATE: Single<[Cell<u8>; fpu::LARGEST]> =
    Single::of([const { Cell::new(0) }; fpu::LARGEST]);

#[inline(never)]
fn set_fpu(caller: &'static Process, who: Endpoint, area: Bytes) -> Outcome {
    let process = subject(caller, who)?;
    sched::release_of(process);
    if area.len == 0 {
        process.fpu.get().reset();
        return Ok(());
    }
    let state = &NEW_STATE[..(area.len as usize).min(NEW_STATE.len())];
    transfer::own_bytes(caller, area.address, state)?;
    Ok(process.fpu.get().replace(state)?)
}

#[inline(never)]
fn tell(caller: &'static Process, slot: usize, to: At<ProcessInfo>) -> Outcome {
    if slot >= MAX_PROCESSES {
        return Err(Errno::EINVAL.into());
    }
    let p = process::slot(slot);
    if slot == 0 || p.flags.get() & rts::FREE != 0 {
        return Err(Errno::ENOENT.into());
    }
    let peer = if p.flags.get() & rts::RECEIVING != 0 {
        p.filter.get()
    } else {
        p.peer.get()
    };
    let info = ProcessInfo {
        endpoint: p.endpoint.get().0,
        flags: p.flags.get(),
        peer: peer.0,
        priority: p.priority.get() as u32,
        cpu_ns: clock::to_ns(p.ticks.get()),
        cr3: p.cr3.get(),
        name: p.name.get(),
    };
    transfer::give(caller, to, &info)
}

fn next_stopped() -> Outcome<Endpoint> {
    match process::living().find(|process| process.stopped_unread.take()) {
        Some(process) => Ok(process.endpoint.get()),
        None => Err(Errno::ENOENT.into()),
    }
}

fn set_space(who: Endpoint, pml4: u64) -> Outcome {
    let process = process::find(who)?;
    if !pml4.is_multiple_of(abi::PAGE) || memory::ram_range(pml4, abi::PAGE).is_err() {
        return Err(Errno::EINVAL.into());
    }
    process.cr3.set(pml4);
    if pml4 == 0 {
        block(process, rts::NO_SPACE);
        return Ok(());
    }
    let upper = memory::cells(pml4 + abi::PAGE / 2, 256);
    gate::fill_upper_half(upper.unwrap_or_default(), process.linux());
    if core::ptr::eq(process, sched::current()) {
        sched::reload_space();
    }
    unblock(process, rts::NO_SPACE);
    Ok(())
}

fn umap(caller: &'static Process, who: Endpoint, address: u64) -> Outcome<u64> {
    let process = process::find_or_self(caller.index(), who)?;
    let operand = Operand {
        cr3: Some(process.cr3.get()),
        address,
    };
    Ok(copy::translate(&operand, address, false)
        .ok_or(Errno::EFAULT)?
        .0)
}

fn bind(caller: &'static Process, line: u32) -> Outcome {
    if line >= LINES || caller.privileges.irqs.get() >> line & 1 == 0 {
        return Err(Errno::EPERM.into());
    }
    lines::bind_line(line, caller.endpoint.get());
    Ok(())
}

#[inline(never)]
fn log(caller: &'static Process, said: Bytes) -> Outcome {
    let text = Cell::new([0; 512]);
    let n = (said.len as usize).min(512);
    transfer::own_bytes(caller, said.address, &text.as_array_of_cells()[..n])?;
    machine::log(&[&text.get()[..n]]);
    Ok(())
}
