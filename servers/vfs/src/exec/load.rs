//! The steps of an exec, done to the process.

use super::Program;
use crate::machine::{Access, call_vm, post};
use crate::mount::Mount;
use crate::peer::Peer;
use crate::state::Caller;
use crate::transfer::{Memory, transfer};
use crate::vnode::Vnode;
use abi::proto::vfs::ExecFigures;
use abi::proto::{fs, pm, vm};
use abi::{Endpoint, Errno};
use alloc::rc::Rc;
use alloc::vec::Vec;
use libexec::layout::Layout;
use libexec::stack::Frame;
use libexec::{Fill, Image, Step, exec_steps};

/// Bytes of one copy into the new program.
const PIECE: u64 = 256 << 10;

/// Replaces the caller's program by `images`: the program, and its dynamic linker if it has
/// one. An error before the point of no return is the caller's
/// answer. After it PM is told to kill the process, which then has no program to get an
/// answer: `Ok(false)`.
pub async fn replace(
    c: &Caller,
    images: &[(&Rc<Vnode>, Image<'_>)],
    frame: &Frame,
    layout: &Layout,
) -> Result<bool, Errno> {
    // The caller's other threads end first: that, too, cannot be undone.
    let mut gone = alone(c).await?;
    match load(c, images, frame, layout, &mut gone).await {
        Err(errno) if gone => {
            failed(c, errno);
            Ok(false)
        }
        result => result.map(|()| true),
    }
}

/// Does the steps; `gone` says when there is no way back.
async fn load(
    c: &Caller,
    images: &[(&Rc<Vnode>, Image<'_>)],
    frame: &Frame,
    layout: &Layout,
    gone: &mut bool,
) -> Result<(), Errno> {
    for (n, (vnode, image)) in images.iter().enumerate() {
        let fill = if vnode.mount.mappable(vnode).await {
            Fill::Map
        } else {
            Fill::Copy
        };
        let steps = if n == 0 {
            exec_steps(image, frame, fill)
        } else {
            let mut steps = Vec::new();
            image.steps(fill, &mut steps);
            steps
        };
        for step in steps {
            do_step(c, vnode, step).await?;
            *gone |= step == Step::Clear;
        }
    }
    c.exec_step()?;
    c.memory().write(frame.sp, &frame.bytes).await?;
    c.exec_step()?;
    let end = images.first().map_or(0, |(_, program)| program.end());
    let request = vm::SetBreak {
        who: c.who(),
        start: end + layout.heap_gap,
        mmap_top: layout.mmap_top,
    };
    call_vm(&*c.vfs.machine, request)?;
    // What is left cannot fail, but for PM's part of it, which kills as this does.
    c.exec_step()
}

/// Ends the caller's other threads; whether there were any.
async fn alone(c: &Caller) -> Result<bool, Errno> {
    if !c.vfs.processes.borrow().has_threads(c.process.pid) {
        return Ok(false);
    }
    c.exec_step()?;
    let pm = Peer::new(Endpoint::PM, &c.vfs.machine, &c.vfs.questions);
    let who = c.who();
    pm.ask(|txn| pm::ExecAlone { txn, who }).await?;
    Ok(true)
}

/// The process has no program and must die.
pub fn failed(c: &Caller, errno: Errno) {
    let failed = pm::ExecFailed {
        who: c.who(),
        status: -i64::from(errno.0),
    };
    post(&*c.vfs.machine, Endpoint::PM, failed);
}

async fn do_step(c: &Caller, vnode: &Rc<Vnode>, step: Step) -> Result<(), Errno> {
    if let Step::MapFile { .. } = step {
        if map_file(c, vnode, step).is_ok() {
            return Ok(());
        }
        for step in step.instead() {
            simple_step(c, vnode, step).await?;
        }
        return Ok(());
    }
    simple_step(c, vnode, step).await
}

/// Maps file pages; the mapping holds a reference that VM gives back.
fn map_file(c: &Caller, vnode: &Rc<Vnode>, step: Step) -> Result<(), Errno> {
    let Step::MapFile {
        address,
        len,
        offset,
        clear_end,
        prot,
        ..
    } = step
    else {
        return Err(Errno::EINVAL);
    };
    c.exec_step()?;
    let mount: &Mount = &vnode.mount;
    mount.map(vnode);
    let request = vm::VfsMmap {
        target: c.who(),
        dev: mount.dev,
        ino: vnode.ino,
        offset,
        addr: address,
        len,
        prot_clearend: prot.bits() | clear_end << 16,
    };
    let mapped = call_vm(&*c.vfs.machine, request);
    if mapped.is_err() {
        mount.unmap(vnode.ino);
    }
    mapped
}

async fn simple_step(c: &Caller, vnode: &Rc<Vnode>, step: Step) -> Result<(), Errno> {
    c.exec_step()?;
    let machine = &*c.vfs.machine;
    let target = c.who();
    match step {
        Step::Clear => call_vm(
            machine,
            vm::ProcCtl {
                param: vm::PROCCTL_CLEAR,
                who: target,
            },
        ),
        Step::MapAnonymous {
            address,
            len,
            prot,
            flags,
        } => call_vm(
            machine,
            vm::Mmap {
                target,
                addr: address,
                len,
                prot,
                flags,
            },
        )
        .map(|_| ()),
        Step::CopyIn {
            address,
            offset,
            len,
        } => copy_in(c, vnode, address, offset, len).await,
        Step::Protect { address, len, prot } => call_vm(
            machine,
            vm::Protect {
                target,
                addr: address,
                len,
                prot,
            },
        ),
        // Done by its own function; there is nothing else to do it with.
        Step::MapFile { .. } => Err(Errno::EINVAL),
    }
}

/// Copies a part of the file straight into the new program.
async fn copy_in(
    c: &Caller,
    vnode: &Vnode,
    address: u64,
    offset: u64,
    len: u64,
) -> Result<(), Errno> {
    let whole = Memory::user(c.who(), address, len);
    let peer = &vnode.mount.peer;
    let mut done = 0;
    while done < len {
        let at = offset + done;
        let attempt = async |grant, len| {
            peer.ask(|txn| fs::Read {
                txn,
                ino: vnode.ino,
                offset: at,
                len,
                grant,
                who: c.who(),
            })
            .await
        };
        let piece = whole.after(done).first(PIECE);
        let words = transfer(&c.vfs.vm, peer, piece, Access::Write, attempt).await?;
        match words[0].min(piece.len()) {
            // The file was cut since its size was read.
            0 => return Err(Errno::EIO),
            n => done += n,
        }
    }
    Ok(())
}

/// The new program is in place and starts at `entry`: closes descriptors, remembers it, has PM start it.
pub fn finish(c: &Caller, program: &Program, entry: u64, frame: &Frame, adopted: (u32, u32)) {
    c.unshare_files();
    c.process.files().close_if(|_, close_on_exec| close_on_exec);
    let old = c.process.program.replace(program.place.clone());
    drop(old);
    c.process.figures.set(ExecFigures {
        arg_start: frame.arg_start,
        arg_end: frame.arg_end,
        env_start: frame.env_start,
        env_end: frame.env_end,
    });
    let mut ids = c.process.ids.get();
    let set_id = adopted != (ids.euid, ids.egid);
    (ids.euid, ids.egid) = adopted;
    c.process.ids.set(ids);
    if set_id {
        c.process.fixed_layout.set(false);
    }
    let (name, name2) = name(program);
    let done = pm::ExecDone {
        who: c.who(),
        pc: entry,
        sp: frame.sp,
        ids: adopted,
        name,
        name2,
        flags: u64::from(set_id),
    };
    post(&*c.vfs.machine, Endpoint::PM, done);
}

/// What ps calls the process: the last component of its path, fifteen bytes.
fn name(program: &Program) -> ([u8; 8], [u8; 8]) {
    let last = match &program.place {
        Some(place) if program.path.is_empty() => &*place.name,
        _ => program.path.rsplit(|&b| b == b'/').next().unwrap_or(b""),
    };
    let mut bytes = [0; 16];
    let n = last.len().min(15);
    bytes[..n].copy_from_slice(&last[..n]);
    let (mut name, mut name2) = ([0; 8], [0; 8]);
    name.copy_from_slice(&bytes[..8]);
    name2.copy_from_slice(&bytes[8..]);
    (name, name2)
}
