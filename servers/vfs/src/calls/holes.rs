//! fallocate(2), lseek(2)'s SEEK_DATA and SEEK_HOLE, and madvise(2)'s MADV_REMOVE: what a file has
//! and has not.

use super::Args;
use crate::file::Kind;
use crate::state::{Caller, Vfs};
use crate::vnode::Vnode;
use abi::Errno;
use abi::fs::{KEEP_SIZE, PUNCH_HOLE};
use abi::proto::{fs, vfs};
use linux_raw_sys::general as linux;

const ZERO_RANGE: u32 = linux::FALLOC_FL_ZERO_RANGE;

/// fallocate(2), as far as the file system has it.
pub async fn fallocate(c: &Caller, a: Args) -> Result<u64, Errno> {
    let file = c.file(a[0])?;
    let (mode, offset, len) = (a[1] as u32, a[2] as i64, a[3] as i64);
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    match mode {
        0 | KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE | linux::FALLOC_FL_UNSHARE_RANGE => {}
        linux::FALLOC_FL_COLLAPSE_RANGE | linux::FALLOC_FL_INSERT_RANGE => {}
        _ if mode == ZERO_RANGE | KEEP_SIZE => {}
        _ => return Err(Errno::EOPNOTSUPP),
    }
    file.check_writable()?;
    let vnode = match (&file.kind, &file.vnode) {
        (Kind::File, Some(vnode)) => vnode.clone(),
        (Kind::Pipe(_), _) => return Err(Errno::ESPIPE),
        (Kind::Block(_), _) => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::ENODEV),
    };
    let (offset, len) = (offset as u64, len as u64);
    let end = offset
        .checked_add(len)
        .filter(|&end| end <= i64::MAX as u64);
    let end = end.ok_or(Errno::EFBIG)?;
    vnode.mount.check_writable()?;
    if mode == PUNCH_HOLE {
        vnode.check_unsealed()?;
    } else {
        if vnode.exact_size().is_none() {
            vnode.set_size(c.attributes(&vnode).await?.size);
        }
        if vnode.exact_size().is_none_or(|size| end > size) {
            vnode.check_size_unsealed(end)?;
        }
        if mode & KEEP_SIZE == 0 {
            c.check_file_size(&vnode, end).await?;
        }
    }
    c.remove_privs(&vnode).await?;
    allocate(&c.vfs, &vnode, offset, len, mode).await?;
    Ok(0)
}

/// Has the file system deal with all of `[offset, offset + len)`.
async fn allocate(vfs: &Vfs, vnode: &Vnode, offset: u64, len: u64, mode: u32) -> Result<(), Errno> {
    let (mount, ino) = (&vnode.mount, vnode.ino);
    if mode == PUNCH_HOLE {
        // The file system is not to hear of them when they are gone.
        vfs.collect_written(mount, ino).await;
    }
    let mut done = 0;
    while done < len {
        // Until an answer says otherwise: one that failed may have grown the file.
        vnode.doubt_size();
        let asked = mount.peer.ask(fs::Allocate {
            ino,
            offset: offset + done,
            len: len - done,
            mode,
        });
        let now = match asked.await {
            Err(Errno::ENOSYS) => return Err(Errno::EOPNOTSUPP),
            answer => answer?,
        };
        vnode.set_size(now.size);
        if now.bytes == 0 {
            return Err(Errno::EIO);
        }
        done = done.saturating_add(now.bytes);
    }
    Ok(())
}

/// Where from `offset` on the next hole of a regular file is, or its next data: `ENXIO` when there is none.
pub async fn seek(c: &Caller, vnode: &Vnode, offset: u64, hole: bool) -> Result<u64, Errno> {
    let (mount, ino) = (&vnode.mount, vnode.ino);
    // What was written to a hole through a mapping is data.
    c.vfs.collect_written(mount, ino).await;
    let asked = mount.peer.ask(fs::Seek { ino, offset, hole });
    match asked.await {
        // It does not know holes.
        Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => Err(Errno::EINVAL),
        answer => Ok(answer?.position),
    }
}

impl Vfs {
    /// Makes a hole for VM (MADV_REMOVE).
    pub async fn punch_file(&self, r: vfs::PunchFile) -> Result<(), Errno> {
        let mount = self.mount_of(r.dev);
        // Mapped, so it is known.
        let vnode = mount.and_then(|mount| mount.vnode(r.ino));
        let vnode = vnode.ok_or(Errno::EIO)?;
        vnode.check_unsealed()?;
        allocate(self, &vnode, r.offset, r.len, PUNCH_HOLE).await
    }
}
