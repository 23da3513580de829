//! The dynamic linker that a program names (PT_INTERP).

use super::{check, header, plan as plan_of};
use crate::contents::read_vnode;
use crate::memory::Memory;
use crate::namei::Follow;
use crate::state::Caller;
use crate::user::zeroed;
use crate::vnode::Vnode;
use abi::Errno;
use alloc::rc::Rc;
use alloc::vec::Vec;
use libexec::Plan;
use linux_raw_sys::general as linux;

/// A dynamic linker, ready to be placed. Its set-id bits mean nothing.
pub struct Interpreter {
    /// The file.
    pub vnode: Rc<Vnode>,
    /// What it asks for.
    pub plan: Plan,
}

/// Finds and checks the dynamic linker of `program`, if it wants one. `first` are the first
/// bytes of the program's file. `ENOENT` and the like when it is not there, `ELIBBAD` when it
/// is no ELF file that can run.
pub async fn find(
    c: &Caller,
    program: &Vnode,
    plan: &Plan,
    first: &[u8],
) -> Result<Option<Interpreter>, Errno> {
    let Some(range) = plan.interpreter() else {
        return Ok(None);
    };
    // At most PATH_MAX bytes.
    let len = range.len as usize;
    let start = usize::try_from(range.offset).unwrap_or(usize::MAX);
    let mut path = match first.get(start..start.saturating_add(len)) {
        Some(path) => path.to_vec(),
        None => read(c, program, range.offset, len).await?,
    };
    // With its NUL, and up to the first one.
    if path.last() != Some(&0) {
        return Err(Errno::ENOEXEC);
    }
    let end = path.iter().position(|&b| b == 0).unwrap_or(len);
    path.truncate(end);
    c.exec_step()?;
    let start = c.start(linux::AT_FDCWD as u64, &path)?;
    let found = c.walk(&start, &path, Follow::Yes).await?;
    let vnode = found.existing()?.vnode().map_err(|_| Errno::EACCES)?;
    if let Some(place) = found.place() {
        vnode.set_place(place);
    }
    c.exec_step()?;
    let attributes = check(c, &vnode).await?;
    c.exec_step()?;
    let first = header(c, &vnode, attributes.size).await?;
    c.exec_step()?;
    let plan = plan_of(c, &vnode, &first, attributes.size).await;
    let plan = plan.map_err(|_| Errno::ELIBBAD)?;
    Ok(Some(Interpreter { vnode, plan }))
}

/// A path that stands further back in the file.
async fn read(c: &Caller, vnode: &Vnode, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
    let mut path = zeroed(len)?;
    let memory = Memory::own_mut(&mut path);
    let n = read_vnode(c, vnode, memory, offset).await?;
    if n as usize == len {
        Ok(path)
    } else {
        Err(Errno::EIO)
    }
}
