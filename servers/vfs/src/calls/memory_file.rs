//! memfd_create(2): a file of /tmp's file system that never had a name, and its seals.

use super::Args;
use crate::file::{Kind, OpenFile};
use crate::state::Caller;
use crate::vnode::{Place, Vnode};
use abi::Errno;
use abi::proto::fs;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

/// Most bytes of its name (MFD_NAME_MAX_LEN).
const NAME_MAX: usize = 249;
/// Seals there are.
const SEALS: u32 = linux::F_SEAL_SEAL
    | linux::F_SEAL_SHRINK
    | linux::F_SEAL_GROW
    | linux::F_SEAL_WRITE
    | linux::F_SEAL_FUTURE_WRITE;
/// memfd_create(2), without huge pages.
pub async fn create(c: &Caller, a: Args) -> Result<u64, Errno> {
    let flags = a[1] as u32;
    let known =
        linux::MFD_CLOEXEC | linux::MFD_ALLOW_SEALING | linux::MFD_NOEXEC_SEAL | linux::MFD_EXEC;
    let both = linux::MFD_NOEXEC_SEAL | linux::MFD_EXEC;
    if flags & !known != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let given = c.path(a[0]).await?;
    if given.len() > NAME_MAX {
        return Err(Errno::EINVAL);
    }
    let files = c.process.files();
    files.free(0)?;
    let mount = c
        .vfs
        .mounts
        .borrow()
        .iter()
        .find(|m| *m.kind == *b"tmpfs")
        .cloned();
    let mount = mount.ok_or(Errno::ENOSYS)?;
    let root = mount.root()?;
    let ids = c.process.subject.ids.get();
    let executable = flags & linux::MFD_NOEXEC_SEAL == 0;
    let mode = linux::S_IFREG | if executable { 0o777 } else { 0o666 };
    let charge = c.vnode()?;
    let grant = mount.peer.lend(b"?")?;
    let created = mount
        .peer
        .ask(fs::Create {
            dir: root.ino,
            grant: grant.to(),
            len: 0,
            mode,
            ids: (ids.euid, ids.egid),
            rdev: 0,
        })
        .await;
    drop(grant);
    let vnode = mount.adopt(created?, Some(charge));
    vnode.seals.set(Some(match flags {
        _ if !executable => 0,
        _ if flags & linux::MFD_ALLOW_SEALING != 0 => 0,
        _ => linux::F_SEAL_SEAL,
    }));
    // How Linux shows it in /proc/PID/fd.
    let mut name = Vec::from(b"memfd:");
    name.extend_from_slice(&given);
    name.extend_from_slice(b" (deleted)");
    let place = Place {
        parent: c.vfs.root_mount()?.root()?,
        name: name.into(),
    };
    let flags_of_file = linux::O_RDWR | linux::O_LARGEFILE;
    let file = OpenFile::new(
        c.context(),
        Kind::File,
        Some(vnode),
        Some(place),
        flags_of_file,
    )?;
    let fd = files.add(0, file, flags & linux::MFD_CLOEXEC != 0, c.payer())?;
    Ok(fd as u64)
}

/// F_ADD_SEALS
pub fn add_seals(file: &OpenFile, seals: u32) -> Result<u64, Errno> {
    let vnode = file.vnode.as_ref().ok_or(Errno::EINVAL)?;
    let now = seals_of(vnode).ok_or(Errno::EINVAL)?;
    if seals & !SEALS != 0 {
        return Err(Errno::EINVAL);
    }
    if file.check_writable().is_err() || now & linux::F_SEAL_SEAL != 0 {
        return Err(Errno::EPERM);
    }
    // Whether a mapping can write only VM knows.
    if seals & linux::F_SEAL_WRITE != 0 && vnode.mount.is_mapped(vnode.ino) {
        return Err(Errno::EBUSY);
    }
    vnode.seals.set(Some(now | seals));
    Ok(0)
}

/// F_GET_SEALS
pub fn get_seals(file: &OpenFile) -> Result<u64, Errno> {
    let vnode = file.vnode.as_ref().ok_or(Errno::EINVAL)?;
    seals_of(vnode).map(u64::from).ok_or(Errno::EINVAL)
}

/// The seals of what can have some; a file of a tmpfs that has a name gets no more.
fn seals_of(vnode: &Vnode) -> Option<u32> {
    let named = vnode.mount.is_tmpfs() && vnode.is_regular();
    vnode.seals.get().or(named.then_some(linux::F_SEAL_SEAL))
}
