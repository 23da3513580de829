//! Text by way of a buffer: the procedure that the seed of this system replaced, kept only to
//! be measured against (`absentia bench exec`). MINIX's exec server read a program's text into
//! a buffer of its own, 128 KiB long, and copied it on from there: every byte is copied twice,
//! and every piece is a round trip to the file system and a kernel call.

use crate::contents::read_vnode;
use crate::memory::Memory;
use crate::state::Caller;
use crate::user::zeroed;
use crate::vnode::Vnode;
use abi::Errno;

/// The reference's buffer, bytes.
const LEN: usize = 128 << 10;

/// Copies a part of the file into the new program.
pub async fn copy_in(
    c: &Caller,
    vnode: &Vnode,
    address: u64,
    offset: u64,
    len: u64,
) -> Result<(), Errno> {
    let kept = &c.vfs.exec.buffer;
    let mut buffer = kept.take();
    if buffer.is_empty() {
        buffer = zeroed(LEN)?;
    }
    let mut done = 0;
    let mut result = Ok(());
    while done < len && result.is_ok() {
        let piece = &mut buffer[..(len - done).min(LEN as u64) as usize];
        let memory = Memory::own_mut(piece);
        result = match read_vnode(c, vnode, memory, offset + done).await {
            // The file was cut since its size was read.
            Ok(0) => Err(Errno::EIO),
            Ok(n) => {
                let to = address + done;
                done += n;
                c.memory().write(to, &piece[..n as usize]).await
            }
            Err(errno) => Err(errno),
        };
    }
    kept.replace(buffer);
    result
}
