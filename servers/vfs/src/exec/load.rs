//! The steps of an exec, done to the process.

use super::batch::Batch;
use super::{Identity, Program, backend};
use crate::machine::post;
use crate::memory::Memory;
use crate::stages::Stage;
use crate::state::Caller;
use crate::transfer::transfer;
use crate::vnode::Vnode;
use crate::vnode::mount::Mount;
use abi::exec::ExecBackend;
use abi::proto::vfs::ExecFigures;
use abi::proto::{fs, pm, vm};
use abi::{Endpoint, Errno, trace};
use alloc::boxed::Box;
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
    let gone = alone(c).await?;
    let mut batch = Batch::default();
    let mut result = load(c, images, frame, layout, &mut batch).await;
    if result.is_err() {
        // What was to be done before the failure.
        let _ = batch.flush(c).await;
    } else {
        result = finish_stack(c, frame).await;
    }
    match result {
        Err(errno) if gone || batch.begun() => {
            failed(c, errno);
            Ok(false)
        }
        result => result.map(|()| true),
    }
}

/// Does the steps.
async fn load<'a>(
    c: &Caller,
    images: &'a [(&Rc<Vnode>, Image<'_>)],
    frame: &Frame,
    layout: &Layout,
    batch: &mut Batch<'a>,
) -> Result<(), Errno> {
    let way = c.vfs.exec.backend.get();
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
            enter(c, batch, stage(step)).await?;
            do_step(c, batch, vnode, step, way).await?;
        }
    }
    enter(c, batch, Stage::Stack).await?;
    c.exec_step()?;
    let end = images.first().map_or(0, |(_, program)| program.end());
    batch.push(vm::SetBreak {
        who: c.who(),
        start: end + layout.heap_gap,
        mmap_top: layout.mmap_top,
    });
    batch.flush(c).await
}

/// Fills the stack.
async fn finish_stack(c: &Caller, frame: &Frame) -> Result<(), Errno> {
    c.exec_step()?;
    c.stage(trace::Stage::Stack, frame.sp, frame.bytes.len() as u64);
    c.memory().write(frame.sp, &frame.bytes).await?;
    // What is left cannot fail, but for PM's part of it, which kills as this does.
    c.exec_step()
}

/// A stage begins. While somebody looks the stages do not share a batch.
async fn enter(c: &Caller, batch: &mut Batch<'_>, stage: Stage) -> Result<(), Errno> {
    let trace = &c.vfs.exec.trace;
    if trace.is_on() && !trace.is_at(stage) {
        batch.flush(c).await?;
        trace.enter(&*c.vfs.base.machine, stage);
    }
    Ok(())
}

/// Ends the caller's other threads; whether there were any.
async fn alone(c: &Caller) -> Result<bool, Errno> {
    if !c.vfs.processes.borrow().has_threads(c.process.subject.pid) {
        return Ok(false);
    }
    c.exec_step()?;
    let pm = c.vfs.base.peer(Endpoint::PM);
    let who = c.who();
    pm.ask(pm::ExecAlone { who }).await?;
    Ok(true)
}

/// `EAGAIN` while the caller's user has more processes than the caller may have, when that was so
/// as it became that user's.
pub async fn check_crowd(c: &Caller) -> Result<(), Errno> {
    if c.process.crowded.get() {
        let pm = c.vfs.base.peer(Endpoint::PM);
        let who = c.who();
        pm.ask(pm::MayExec { who }).await?;
        c.process.crowded.set(false);
    }
    Ok(())
}

/// Whether the program's set-id bits count for the caller: PM knows who looks at it.
pub async fn may_set_id(c: &Caller) -> bool {
    let pm = c.vfs.base.peer(Endpoint::PM);
    let who = c.who();
    pm.ask(pm::MaySetId { who }).await.is_ok()
}

/// The caller goes on with its old program, for which [`may_set_id`] was asked.
pub fn set_id_over(c: &Caller) {
    let over = pm::SetIdOver { who: c.who() };
    post(&*c.vfs.base.machine, Endpoint::PM, over);
}

/// The process has no program and must die.
pub fn failed(c: &Caller, errno: Errno) {
    let failed = pm::ExecFailed {
        who: c.who(),
        status: -i64::from(errno.0),
    };
    post(&*c.vfs.base.machine, Endpoint::PM, failed);
}

/// Where a step belongs.
fn stage(step: Step) -> Stage {
    match step {
        Step::Clear => Stage::Clear,
        Step::MapAnonymous { flags, .. } if flags.contains(vm::MapFlags::STACK) => Stage::Stack,
        _ => Stage::Fill,
    }
}

async fn do_step<'a>(
    c: &Caller,
    batch: &mut Batch<'a>,
    vnode: &'a Rc<Vnode>,
    step: Step,
    way: ExecBackend,
) -> Result<(), Errno> {
    match step {
        Step::MapFile { .. } => backend::file_pages(c, batch, vnode, step, way).await,
        _ => simple_step(c, batch, vnode, step).await,
    }
}

/// Maps file pages; the mapping holds a reference that VM gives back. Where VM is to refuse it ([`crate::loading`]) the
/// pages are copied, as where it does.
pub(super) async fn map_file<'a>(
    c: &Caller,
    batch: &mut Batch<'a>,
    vnode: &'a Rc<Vnode>,
    step: Step,
) -> Result<(), Errno> {
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
    if c.exec_step().is_err() {
        batch.flush(c).await?;
        return Box::pin(backend::copy_instead(c, vnode, step)).await;
    }
    c.stage_of(&step);
    let mount: &Mount = &vnode.mount;
    let request = vm::VfsMmap {
        target: c.who(),
        dev: mount.dev,
        ino: vnode.ino,
        offset,
        addr: address,
        len,
        prot_clearend: prot.bits() | clear_end << 16,
    };
    batch.push_mapping(vnode, step, request);
    Ok(())
}

/// Does a step that needs no choice.
pub(super) async fn simple_step(
    c: &Caller,
    batch: &mut Batch<'_>,
    vnode: &Rc<Vnode>,
    step: Step,
) -> Result<(), Errno> {
    c.exec_step()?;
    c.stage_of(&step);
    let target = c.who();
    match step {
        Step::Clear => batch.push(vm::ProcCtl {
            param: vm::PROCCTL_CLEAR,
            who: target,
        }),
        Step::MapAnonymous {
            address,
            len,
            prot,
            flags,
        } => batch.push(vm::Mmap {
            target,
            addr: address,
            len,
            prot,
            flags,
        }),
        Step::CopyIn {
            address,
            offset,
            len,
        } => {
            batch.flush(c).await?;
            copy_in(c, vnode, address, offset, len).await?;
        }
        Step::Protect { address, len, prot } => batch.push(vm::Protect {
            target,
            addr: address,
            len,
            prot,
        }),
        // Done by its own function; there is nothing else to do it with.
        Step::MapFile { .. } => return Err(Errno::EINVAL),
    }
    Ok(())
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
            peer.ask(fs::Read {
                ino: vnode.ino,
                offset: at,
                len,
                grant,
                who: c.who(),
                share: false,
            })
            .await
        };
        let piece = whole.after(done).first(PIECE);
        let moved = transfer(&c.vfs.base.vm, peer, piece, attempt).await?;
        match moved.bytes.min(piece.len()) {
            // The file was cut since its size was read.
            0 => return Err(Errno::EIO),
            n => done += n,
        }
    }
    Ok(())
}

/// The new program is in place and starts at `entry`: closes descriptors, remembers it, has PM start it.
pub fn finish(c: &Caller, program: &Program, entry: u64, frame: &Frame, identity: Identity) {
    let adopted = identity.adopted;
    c.process.files().close_if(|_, close_on_exec| close_on_exec);
    let old = c.process.program.replace(program.place.clone());
    drop(old);
    c.process.figures.set(ExecFigures {
        arg_start: frame.arg_start,
        arg_end: frame.arg_end,
        env_start: frame.env_start,
        env_end: frame.env_end,
        auxv_start: frame.auxv_start,
        auxv_end: frame.auxv_end,
    });
    let mut ids = c.process.subject.ids.get();
    let set_id = adopted != (ids.euid, ids.egid);
    ids.adopt(adopted);
    c.process.subject.ids.set(ids);
    c.process
        .subject
        .credential
        .set(c.vfs.base.counters.unique());
    if set_id {
        c.process.fixed_layout.set(false);
    }
    c.stage(trace::Stage::Start, 0, 0);
    let done = pm::ExecDone {
        who: c.who(),
        pc: entry,
        sp: frame.sp,
        ids: adopted,
        name: name(program),
        flags: u64::from(set_id) | u64::from(!identity.readable) << 1,
    };
    post(&*c.vfs.base.machine, Endpoint::PM, done);
}

/// What ps calls the process: the last component of its path, fifteen bytes.
fn name(program: &Program) -> [u8; 16] {
    let last = match &program.place {
        Some(place) if program.by_descriptor => &*place.name,
        _ => program.path.rsplit(|&b| b == b'/').next().unwrap_or(b""),
    };
    let mut name = [0; 16];
    let n = last.len().min(15);
    name[..n].copy_from_slice(&last[..n]);
    name
}
