//! What VFS tells other servers about its files.

use crate::device::minor;
use crate::file::{Kind, OpenFile};
use crate::namei::{path_of, path_of_place};
use crate::state::Vfs;
use crate::vnode::Vnode;
use crate::vnode::mount::Mount;
use abi::proto::device::numbers;
use abi::proto::vfs;
use abi::{Endpoint, Errno};
use alloc::format;
use alloc::rc::{Rc, Weak};
use alloc::string::String;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;

impl Vfs {
    /// The path of a process's file.
    pub(crate) fn path_of(
        &self,
        source: Endpoint,
        r: vfs::PathOf,
    ) -> Result<vfs::PathLength, Errno> {
        let process = self.process(r.who).ok_or(Errno::ESRCH)?;
        let root = process.root();
        let mut path = match r.which {
            0 => path_of(&process.cwd(), &root)?,
            1 => {
                let program = process.program.borrow();
                path_of_place(program.as_ref().ok_or(Errno::ENOENT)?, &root)?
            }
            2 => path_of(&root, &self.root_mount()?.root()?)?,
            3 => {
                let file = process.files().get(r.fd).map_err(|_| Errno::ENOENT)?;
                path_of_file(&file, &root)?
            }
            _ => return Err(Errno::EINVAL),
        };
        path.truncate(r.len as usize);
        if !path.is_empty() {
            self.base.machine.write_grant(source, r.grant, &path)?;
        }
        Ok(vfs::PathLength {
            len: path.len() as u64,
        })
    }

    /// The path of a file that a process maps.
    pub(crate) fn mapped_path(
        &self,
        source: Endpoint,
        r: vfs::MappedPath,
    ) -> Result<vfs::MappedPathLength, Errno> {
        let root = self.process(r.who).ok_or(Errno::ESRCH)?.root();
        let mount = self.mount_of(r.dev).ok_or(Errno::ENOENT)?;
        let vnode = mount.vnode(r.ino).ok_or(Errno::ENOENT)?;
        let mut path = path_of_place(&vnode.place().ok_or(Errno::ENOENT)?, &root)?;
        mark_removed(&vnode, &mut path);
        path.truncate(r.len as usize);
        self.base.machine.write_grant(source, r.grant, &path)?;
        Ok(vfs::MappedPathLength {
            len: path.len() as u64,
        })
    }

    /// An open descriptor.
    pub(crate) fn next_fd(&self, r: vfs::NextFd) -> Result<vfs::FoundFd, Errno> {
        let process = self.process(r.who).ok_or(Errno::ESRCH)?;
        let from = usize::try_from(r.fd).map_err(|_| Errno::ENOENT)?;
        let (fd, found) = process.files().next(from).ok_or(Errno::ENOENT)?;
        let mut flags = found.file.flags();
        if found.close_on_exec {
            flags |= linux::O_CLOEXEC;
        }
        Ok(vfs::FoundFd {
            fd: fd as i32,
            position: found.file.position(),
            flags: u64::from(flags),
        })
    }

    /// The text of /proc/PID/mounts or mountinfo.
    pub(crate) fn mount_table(
        &self,
        source: Endpoint,
        r: vfs::MountTable,
    ) -> Result<vfs::MountTableLength, Errno> {
        let root = self.root_mount()?.root()?;
        let mut text = Vec::new();
        for mount in self.mounts.borrow().iter() {
            let on = match mount.on() {
                None => Vec::from(b"/"),
                Some(place) => path_of_place(&place, &root)?,
            };
            let on = escaped(&on);
            let (kind, device) = (escaped(&mount.kind), escaped(&mount.source));
            let flags = flags_text(mount.flags.get());
            let line = if r.long {
                let id = minor(mount.dev);
                // "/" hangs on itself.
                let above = mount.on().map_or(id, |place| minor(place.parent.mount.dev));
                let mode = &flags[..2];
                let more = own_options(mount);
                format!("{id} {above} 0:{id} / {on} {flags} - {kind} {device} {mode}{more}\n")
            } else {
                let more = own_options(mount);
                format!("{device} {on} {kind} {flags}{more} 0 0\n")
            };
            rt::room::extend(&mut text, line.as_bytes())?;
        }
        let bytes = &text[..text.len().min(r.len as usize)];
        if !bytes.is_empty() {
            self.base.machine.write_grant(source, r.grant, bytes)?;
        }
        Ok(vfs::MountTableLength {
            len: bytes.len() as u64,
        })
    }

    /// What is locked, in vnodes that only the name cache has as well.
    pub(crate) fn locks(&self) -> vfs::LockFigures {
        let mut figures = vfs::LockFigures {
            positions: self.base.counters.positions.get(),
            ranges: 0,
            writing: 0,
            executing: 0,
        };
        for mount in self.mounts.borrow().iter() {
            mount.each_vnode(|vnode| {
                figures.ranges += vnode.locks.count() as u64;
                figures.writing += u64::from(vnode.writers());
                figures.executing += u64::from(vnode.executions());
            });
        }
        figures
    }

    /// Counters for leak checks. `ENOMEM`.
    pub(crate) fn figures(&self) -> Result<vfs::VfsFigures, Errno> {
        let mut vnodes = 0;
        let detached = self.detached.borrow();
        let detached = detached.iter().filter_map(Weak::upgrade);
        for mount in self.mounts.borrow().iter().cloned().chain(detached) {
            vnodes += mount.vnodes_in_use()? as u64;
        }
        Ok(vfs::VfsFigures {
            files: self.base.counters.files.get(),
            vnodes,
            pipes: self.base.counters.pipes.get(),
            tasks: self.base.spawner.tasks() as u64 - self.base.counters.giving.get(),
            grants: self.base.machine.grants() as u64,
            processes: self.processes.borrow().len() as u64,
            repairs: self.base.vm.repairs.get(),
        })
    }
}

/// What separates the fields of a line stands as a number.
fn escaped(text: &[u8]) -> String {
    let mut out = Vec::new();
    for &byte in text {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => {
                out.extend_from_slice(format!("\\{byte:03o}").as_bytes())
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A mount's flags in Linux's words and order.
fn flags_text(flags: u64) -> String {
    let mut text = String::from(if flags & u64::from(linux::MS_RDONLY) != 0 {
        "ro"
    } else {
        "rw"
    });
    for (flag, name) in [
        (linux::MS_NOSUID, ",nosuid"),
        (linux::MS_NODEV, ",nodev"),
        (linux::MS_NOEXEC, ",noexec"),
        (linux::MS_NOATIME, ",noatime"),
        (linux::MS_NODIRATIME, ",nodiratime"),
    ] {
        if flags & u64::from(flag) != 0 {
            text += name;
        }
    }
    if flags & u64::from(linux::MS_NOATIME | linux::MS_STRICTATIME) == 0 {
        text += ",relatime";
    }
    text
}

/// The type's own options behind the flags.
fn own_options(mount: &Mount) -> String {
    let options = mount.options.borrow();
    if options.is_empty() {
        String::new()
    } else {
        format!(",{}", escaped(&options))
    }
}

/// As Linux marks what has no name any more.
fn mark_removed(vnode: &Vnode, path: &mut Vec<u8>) {
    if vnode.is_removed() {
        path.extend_from_slice(b" (deleted)");
    }
}

/// What /proc/PID/fd shows.
fn path_of_file(file: &OpenFile, root: &Rc<Vnode>) -> Result<Vec<u8>, Errno> {
    if let Some(vnode) = &file.vnode
        && vnode.is_directory()
    {
        return path_of(vnode, root);
    }
    if let Some(place) = &file.place {
        let mut path = path_of_place(place, root)?;
        if let Some(vnode) = &file.vnode {
            mark_removed(vnode, &mut path);
        }
        return Ok(path);
    }
    Ok(match &file.kind {
        Kind::Pipe(end) => format!("pipe:[{}]", end.pipe.id).into_bytes(),
        Kind::Event(_) => Vec::from(b"anon_inode:[eventfd]"),
        Kind::Timer(_) => Vec::from(b"anon_inode:[timerfd]"),
        Kind::Epoll(_) => Vec::from(b"anon_inode:[eventpoll]"),
        Kind::Socket(socket) => format!("socket:[{}]", socket.id).into_bytes(),
        Kind::Device(driver, minor) => match (driver.major, *minor) {
            (numbers::TTY_MAJOR, numbers::CONSOLE_MINOR) => Vec::from(b"/dev/console"),
            (numbers::TTY_MAJOR, _) => Vec::from(b"/dev/tty"),
            (major, minor) => format!("char:[{major},{minor}]").into_bytes(),
        },
        Kind::File | Kind::Block(_) | Kind::Path => match &file.vnode {
            Some(vnode) => format!("inode:[{}]", vnode.ino).into_bytes(),
            None => Vec::new(),
        },
    })
}
