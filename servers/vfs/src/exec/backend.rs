//! The three ways in which a part of a program's file reaches the process: see
//! [`ExecBackend`]. One of them is used, the others are what it is measured against.

use super::stages::Trace;
use super::{buffer, load};
use crate::state::Caller;
use crate::vnode::Vnode;
use abi::Errno;
use abi::exec::ExecBackend;
use abi::proto::vm::Prot;
use alloc::rc::Rc;
use core::cell::Cell;
use libexec::Step;

/// How programs are loaded.
#[derive(Default)]
pub struct Control {
    /// The way.
    pub backend: Cell<ExecBackend>,
    /// Where the time goes.
    pub trace: Trace,
    /// What [`ExecBackend::Buffer`] copies through.
    pub(super) buffer: buffer::Kept,
}

/// Does a [`Step::MapFile`].
pub async fn file_pages(
    c: &Caller,
    vnode: &Rc<Vnode>,
    step: Step,
    prot: Prot,
    backend: ExecBackend,
) -> Result<(), Errno> {
    // A mapping that VM refuses is replaced by copies.
    if backend == ExecBackend::Map && load::map_file(c, vnode, step).is_ok() {
        return Ok(());
    }
    for step in step.instead() {
        match step {
            // Data never went through the buffer.
            Step::CopyIn {
                address,
                offset,
                len,
            } if backend == ExecBackend::Buffer && !prot.contains(Prot::WRITE) => {
                buffer::copy_in(c, vnode, address, offset, len).await?;
            }
            step => load::simple_step(c, vnode, step).await?,
        }
    }
    Ok(())
}
