//! Kernel calls: decoding, permission, and the short ones themselves.

use crate::arch::{fpu, gate, layout, machine};
use crate::copy::{self, Operand};
use crate::counters::COUNTERS;
use crate::global::Single;
use crate::process::{self, FIXED_FLAG, MAX_PROCESSES, Process};
use crate::sched::{self, block, unblock};
use crate::transfer::{self, Outcome, Stop};
use crate::{clock, facts, lab, lifecycle, lines, linux, memory, memreq};
use abi::kernel::{Kcall, Privileges, ProcessInfo, Registers, rts};
use abi::role::{Role, Roles};
use abi::trace::Decision;
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

/// Calls are known by number; each arm of [`serve`] names one.
macro_rules! calls {
    ($number:expr, $caller:expr, { $($name:ident => $body:expr),* $(,)? }) => {
        match $number {
            $(n if n == Kcall::$name as u64 => {
                if $caller.privileges.kcalls.get() & Kcall::$name.bit() == 0 {
                    return Err(Errno::EPERM.into());
                }
                $body
            })*
            _ => Err(Errno::ENOSYS.into()),
        }
    };
}

fn serve(caller: &'static Process, number: u64) -> Outcome {
    let r = &caller.regs;
    let [a1, a2, a3, a4, a5] = [&r.rdi, &r.rsi, &r.rdx, &r.r8, &r.r9].map(Cell::get);
    let who = Endpoint(a1 as u32);
    // The two that everybody may.
    if number == Kcall::Null as u64 {
        return Ok(0);
    }
    if number == Kcall::Yield as u64 {
        caller.slice_end.set(0);
        return Ok(0);
    }
    calls!(number, caller, {
        SafeCopy => transfer::safecopy(caller, a1),
        SafeCopyVector => transfer::safecopy_vector(caller, a1, a2),
        SafeMemset => transfer::safe_memset(caller, who, a2 as i32, a3, a4, a5 as u8),
        VirCopy => transfer::vircopy(caller, a1),
        Memset => transfer::memset(caller, a1 as u32, a2, a3, a4 as u8, a5),
        SetGrants => {
            caller.grants.set(a1);
            caller.grant_count.set(a2);
            Ok(0)
        },
        Umap => umap(caller, who, a2),
        SetInbox => {
            caller.inbox.set(a1);
            Ok(0)
        },
        Time => Ok(clock::now()),
        SetTimer => {
            caller.deadline.set(a1);
            if a1 != 0 {
                clock::arm(a1);
            }
            Ok(0)
        },
        ProcCreate => create(caller, name(a1, a2), a3),
        ProcFork => lifecycle::fork(process::find(who)?),
        ProcExit => {
            let process = subject(caller, who)?;
            if core::ptr::eq(process, caller) {
                return Err(Errno::EINVAL.into());
            }
            lifecycle::exit(process)
        },
        ProcPriv => set_privileges(caller, who, a2),
        ProcStart => lifecycle::start(subject(caller, who)?, a2, a3, a4),
        ProcStop => lifecycle::stop(subject(caller, who)?),
        ProcResume => lifecycle::resume(subject(caller, who)?, a2),
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
            process.name.set(name(a2, a3));
            lab::named(process);
            Ok(0)
        },
        GetStopped => next_stopped(),
        SetAddressSpace => set_space(who, a2),
        MemreqGet => memreq::next_memory_request(caller, a1),
        MemreqReply => memreq::memory_request_done(who, a2),
        FlushSelf => {
            sched::reload_space();
            Ok(0)
        },
        IrqBind => bind(caller, a1),
        Log => log(caller, a1, a2),
        PowerOff => lab::power_off(a1),
        BootInfo => transfer::give(caller, a1, facts::info()),
        ModuleRead => {
            let read = facts::module_read(caller.cr3.get(), a1, a2, a3, a4);
            transfer::own(caller, (a3, a4, true), read)
        },
        ModuleInfo => {
            transfer::give(caller, a2, &facts::module(a1)?)
        },
        SetLinuxRoutes => set_routes(caller, a1),
        Counters => {
            transfer::give(caller, a1, &COUNTERS.get())
        },
        Decide => {
            let who = caller.endpoint.get();
            Ok(lab::decide(Decision::Task, a1 as usize, |_| who) as u64)
        },
        FrameRestore => {
            lab::restore(a1);
            Ok(lab::withdrawn(a1))
        },
        CommandLine => {
            let line = facts::command_line();
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
    if role != Role::Program && !MAKERS.admits(caller.endpoint.get()) {
        return Err(Errno::EPERM.into());
    }
    let process = lifecycle::create(name, role)?;
    Ok(process.endpoint.get().0 as u64)
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
fn get_regs(caller: &'static Process, who: Endpoint, address: u64) -> Outcome {
    let process = subject(caller, who)?;
    sched::release_of(process);
    // A copy: the process may be the caller.
    let mut regs = process.regs.get();
    regs.rflags |= FIXED_FLAG;
    transfer::give(caller, address, &regs)
}

#[inline(never)]
fn set_privileges(caller: &'static Process, who: Endpoint, address: u64) -> Outcome {
    let privileges: Privileges = transfer::own_struct(caller, address)?;
    let process = process::find(who)?;
    // A program has none, whoever asks.
    if process.linux() || !MAKERS.admits(caller.endpoint.get()) {
        return Err(Errno::EPERM.into());
    }
    process.privileges.set(privileges);
    Ok(0)
}

#[inline(never)]
fn set_routes(caller: &'static Process, address: u64) -> Outcome {
    let routes: [u8; 512] = transfer::own_struct(caller, address)?;
    linux::set_routes(&routes);
    Ok(0)
}

#[inline(never)]
fn set_regs(caller: &'static Process, who: Endpoint, address: u64) -> Outcome {
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
    process.regs.set(regs);
    process.set_rflags(regs.rflags);
    process.step_over();
    Ok(0)
}

#[inline(never)]
fn get_fpu(caller: &'static Process, who: Endpoint, address: u64, len: u64) -> Outcome {
    let process = subject(caller, who)?;
    sched::release_of(process);
    let bytes = process.fpu.get().bytes();
    if len == 0 {
        return Ok(bytes.len() as u64);
    }
    let n = bytes.len().min(len as usize);
    transfer::give_cells(caller, address, &bytes[..n])
}

/// An FPU state on its way into a process.
static NEW_STATE: Single<[Cell<u8>; fpu::LARGEST]> =
    Single::of([const { Cell::new(0) }; fpu::LARGEST]);

#[inline(never)]
fn set_fpu(caller: &'static Process, who: Endpoint, address: u64, len: u64) -> Outcome {
    let process = subject(caller, who)?;
    sched::release_of(process);
    if len == 0 {
        process.fpu.get().reset();
        return Ok(0);
    }
    let state = &NEW_STATE[..(len as usize).min(NEW_STATE.len())];
    transfer::own_bytes(caller, address, state)?;
    process.fpu.get().replace(state)?;
    Ok(0)
}

#[inline(never)]
fn info(caller: &'static Process, slot: u64, address: u64) -> Outcome {
    if slot as usize >= MAX_PROCESSES {
        return Err(Errno::EINVAL.into());
    }
    let p = process::slot(slot as usize);
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
    transfer::give(caller, address, &info)
}

fn next_stopped() -> Outcome {
    match process::living().find(|process| process.stopped_unread.take()) {
        Some(process) => Ok(process.endpoint.get().0 as u64),
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
        return Ok(0);
    }
    let upper = memory::cells(pml4 + abi::PAGE / 2, 256);
    gate::fill_upper_half(upper.unwrap_or_default(), process.linux());
    if core::ptr::eq(process, sched::current()) {
        sched::reload_space();
    }
    unblock(process, rts::NO_SPACE);
    Ok(0)
}

fn umap(caller: &'static Process, who: Endpoint, address: u64) -> Outcome {
    let process = process::find_or_self(caller.index(), who)?;
    let operand = Operand {
        cr3: Some(process.cr3.get()),
        address,
    };
    Ok(copy::translate(&operand, address, false)
        .ok_or(Errno::EFAULT)?
        .0)
}

fn bind(caller: &'static Process, line: u64) -> Outcome {
    if line >= layout::LINES || caller.privileges.irqs.get() >> line & 1 == 0 {
        return Err(Errno::EPERM.into());
    }
    lines::bind_line(line as u32, caller.endpoint.get());
    Ok(0)
}

#[inline(never)]
fn log(caller: &'static Process, address: u64, len: u64) -> Outcome {
    let text = Cell::new([0; 512]);
    let n = (len as usize).min(512);
    transfer::own_bytes(caller, address, &text.as_array_of_cells()[..n])?;
    machine::log(&[&text.get()[..n]]);
    Ok(0)
}
