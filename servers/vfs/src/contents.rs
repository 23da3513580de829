//! What is in regular files: reads and writes by their file systems, straight from and to the
//! memory of programs.

use crate::memory::Memory;
use crate::state::Caller;
use crate::transfer::transfer;
use crate::vnode::Vnode;
use abi::Errno;
use abi::proto::fs;

/// One request to a file system: others want their turn there.
pub const CHUNK: u64 = 256 << 10;

/// Reads a regular file. Short only at its end, or where the memory ends.
pub async fn read_vnode(
    c: &Caller,
    vnode: &Vnode,
    memory: Memory<'_>,
    position: u64,
) -> Result<u64, Errno> {
    read_and_share(c, vnode, memory, position, false).await
}

/// [`read_vnode`]; with `share` the file is about to be mapped.
pub async fn read_and_share(
    c: &Caller,
    vnode: &Vnode,
    memory: Memory<'_>,
    position: u64,
    share: bool,
) -> Result<u64, Errno> {
    vnode.mount.peer.check_alive()?;
    // What cannot be transferred need not be repaired, nor asked for.
    let there = match vnode.exact_size() {
        Some(size) => size.saturating_sub(position),
        None => u64::MAX,
    };
    let memory = memory.first(there);
    let mut done = 0;
    while done < memory.len() {
        let piece = memory.after(done).first(CHUNK);
        let at = position + done;
        let attempt = async |grant, len| {
            vnode
                .mount
                .peer
                .ask(fs::Read {
                    ino: vnode.ino,
                    offset: at,
                    len,
                    grant,
                    who: c.who(),
                    share,
                })
                .await
        };
        let peer = &vnode.mount.peer;
        match transfer(&c.vfs.base.vm, peer, piece, attempt).await {
            Ok(moved) => {
                let n = moved.bytes.min(piece.len());
                done += n;
                if n < piece.len() {
                    break;
                }
            }
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Writes a regular file: bytes written, and the position after them.
pub async fn write_vnode(
    c: &Caller,
    vnode: &Vnode,
    memory: Memory<'_>,
    position: u64,
    append: bool,
) -> Result<(u64, u64), Errno> {
    let mut done = 0;
    let mut end = position;
    if position
        .checked_add(memory.len())
        .is_none_or(|e| e > i64::MAX as u64)
    {
        return Err(Errno::EFBIG);
    }
    if vnode.seals.get().is_some() && !memory.is_empty() {
        vnode.check_unsealed()?;
        let start = if append { vnode.exact_size() } else { None };
        let end = start.unwrap_or(position) + memory.len();
        if vnode.exact_size().is_none_or(|size| end > size) {
            vnode.check_size_unsealed(end)?;
        }
    }
    vnode.mount.peer.check_alive()?;
    let room = c.room_in_file(vnode, position, append, memory.len());
    let memory = memory.first(room.await?);
    while done < memory.len() {
        let piece = memory.after(done).first(CHUNK);
        let at = end;
        let attempt = async |grant, len| {
            c.remove_privs(vnode).await?;
            vnode
                .mount
                .peer
                .ask(fs::Write {
                    ino: vnode.ino,
                    offset: at,
                    len,
                    grant,
                    append,
                    who: c.who(),
                })
                .await
        };
        let peer = &vnode.mount.peer;
        // Until an attempt says otherwise: one that failed may have grown the file.
        vnode.doubt_size();
        match transfer(&c.vfs.base.vm, peer, piece, attempt).await {
            Ok(written) => {
                vnode.set_size(written.size);
                let n = written.bytes.min(piece.len());
                done += n;
                end = written.position.saturating_add(n);
                if n < piece.len() {
                    break;
                }
            }
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok((done, end))
}
