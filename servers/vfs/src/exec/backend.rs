//! The three ways in which a part of a program's file reaches the process: see
//! [`ExecBackend`]. One of them is used, the others are what it is measured against.

use super::batch::Batch;
use super::{buffer, load};
use crate::state::Caller;
use crate::vnode::Vnode;
use abi::Errno;
use abi::exec::ExecBackend;
use abi::proto::vm::Prot;
use alloc::rc::Rc;
use libexec::Step;

/// Does a [`Step::MapFile`].
pub async fn file_pages<'a>(
    c: &Caller,
    batch: &mut Batch<'a>,
    vnode: &'a Rc<Vnode>,
    step: Step,
    backend: ExecBackend,
) -> Result<(), Errno> {
    match backend {
        ExecBackend::Map => load::map_file(c, batch, vnode, step).await,
        _ => copy(c, batch, vnode, step, backend).await,
    }
}

/// Does a [`Step::MapFile`] that VM refuses.
pub async fn copy_instead(c: &Caller, vnode: &Rc<Vnode>, step: Step) -> Result<(), Errno> {
    let mut batch = Batch::default();
    copy(c, &mut batch, vnode, step, ExecBackend::Copy).await?;
    batch.flush(c).await
}

async fn copy<'a>(
    c: &Caller,
    batch: &mut Batch<'a>,
    vnode: &'a Rc<Vnode>,
    step: Step,
    backend: ExecBackend,
) -> Result<(), Errno> {
    // Data never went through the buffer.
    let text = matches!(step, Step::MapFile { prot, .. } if !prot.contains(Prot::WRITE));
    for step in step.instead() {
        match step {
            Step::CopyIn {
                address,
                offset,
                len,
            } if text && backend == ExecBackend::Buffer => {
                batch.flush(c).await?;
                buffer::copy_in(c, vnode, address, offset, len).await?;
            }
            step => load::simple_step(c, batch, vnode, step).await?,
        }
    }
    Ok(())
}
