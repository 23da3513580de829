//! Operations on names: look up, create, link, remove, symlinks.

use crate::attr::New;
use crate::device::{BlockDevice, PageStore};
use crate::dir::check_name;
use crate::layout::{
    BLOCK, CHAR, DIRECTORY, FIFO, Inode, LINK_MAX, REGULAR, SOCKET, SYMLINK, TYPE, entry_type,
};
use crate::volume::Volume;
use crate::{Errno, Result};

/// Longest target of a symlink that fits the inode.
const FAST_SYMLINK: usize = 59;

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    /// The inode that `name` means in directory `dir`.
    pub fn lookup(&mut self, dir: u32, name: &[u8]) -> Result<u32> {
        check_name(name)?;
        let inode = self.directory(dir)?;
        Ok(self.find(&inode, name)?.ok_or(Errno::ENOENT)?.ino)
    }

    /// The directory, which must still have a name, for a new entry `name`.
    fn directory_for(&mut self, dir: u32, name: &[u8]) -> Result<Inode> {
        self.writable()?;
        check_name(name)?;
        let inode = self.directory(dir)?;
        if inode.links == 0 {
            return Err(Errno::ENOENT);
        }
        if self.find(&inode, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        Ok(inode)
    }

    /// Creates what the type in `new.mode` says (not a symlink): file, directory, device
    /// node, fifo, socket.
    pub fn create(&mut self, dir: u32, name: &[u8], new: New) -> Result<u32> {
        let mode = new.mode as u16;
        if new.mode > u16::MAX as u32
            || !matches!(
                mode & TYPE,
                REGULAR | DIRECTORY | CHAR | BLOCK | FIFO | SOCKET
            )
        {
            return Err(Errno::EINVAL);
        }
        if new.rdev > u32::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        let mut parent = self.directory_for(dir, name)?;
        let directory = mode & TYPE == DIRECTORY;
        if directory && parent.links >= LINK_MAX {
            return Err(Errno::EMLINK);
        }
        let mut inode = self.new_inode(mode, &new);
        if matches!(mode & TYPE, CHAR | BLOCK) {
            inode.set_rdev(new.rdev);
        }
        let ino = self.allocate_inode(dir, directory)?;
        let made = if directory {
            self.create_directory(dir, ino, &mut inode)
        } else {
            self.put_new_inode(ino, &mut inode)
        };
        self.enter(dir, &mut parent, name, ino, &mut inode, made)?;
        if directory {
            parent.links += 1;
            self.put_inode(dir, &parent)?;
        }
        Ok(ino)
    }

    /// A symbolic link to `target`.
    pub fn symlink(&mut self, dir: u32, name: &[u8], target: &[u8], new: New) -> Result<u32> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.len() >= self.sb.block_size {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut parent = self.directory_for(dir, name)?;
        let mut inode = self.new_inode(SYMLINK | 0o777, &new);
        inode.size = target.len() as u64;
        let ino = self.allocate_inode(dir, false)?;
        let made = if target.len() <= FAST_SYMLINK {
            for (i, &byte) in target.iter().enumerate() {
                inode.block[i / 4] |= (byte as u32) << (i % 4 * 8);
            }
            self.put_new_inode(ino, &mut inode)
        } else {
            self.slow_symlink(ino, &mut inode, target)
        };
        self.enter(dir, &mut parent, name, ino, &mut inode, made)?;
        Ok(ino)
    }

    fn slow_symlink(&mut self, ino: u32, inode: &mut Inode, target: &[u8]) -> Result<()> {
        let (block, _) = self.map_allocate(ino, inode, 0)?;
        self.meta_fresh(block)?[..target.len()].copy_from_slice(target);
        self.put_new_inode(ino, inode)
    }

    fn create_directory(&mut self, dir: u32, ino: u32, inode: &mut Inode) -> Result<()> {
        inode.links = 2;
        inode.size = self.sb.block_size as u64;
        let (block, _) = self.map_allocate(ino, inode, 0)?;
        self.init_directory(block, ino, dir)?;
        self.put_new_inode(ino, inode)
    }

    fn new_inode(&self, mode: u16, new: &New) -> Inode {
        Inode {
            mode,
            uid: new.uid,
            gid: new.gid,
            links: 1,
            atime: self.now,
            mtime: self.now,
            ctime: self.now,
            ..Default::default()
        }
    }

    /// Gives a freshly made inode its name; whatever fails, nothing of it remains.
    fn enter(
        &mut self,
        dir: u32,
        parent: &mut Inode,
        name: &[u8],
        ino: u32,
        inode: &mut Inode,
        made: Result<()>,
    ) -> Result<()> {
        let entered =
            made.and_then(|()| self.add_entry(dir, parent, name, ino, entry_type(inode.mode)));
        if let Err(errno) = entered {
            inode.links = 0;
            self.put_new_inode(ino, inode)?;
            self.free_inode(ino)?;
            return Err(errno);
        }
        Ok(())
    }

    /// The target of a symlink, into `buffer`; returns how many bytes fit.
    pub fn readlink(&mut self, ino: u32, buffer: &mut [u8]) -> Result<usize> {
        let inode = self.inode(ino)?;
        if inode.kind() != SYMLINK {
            return Err(Errno::EINVAL);
        }
        let block_size = self.sb.block_size;
        if inode.size >= block_size as u64 {
            return Err(self.damage());
        }
        let len = buffer.len().min(inode.size as usize);
        if inode.is_fast_symlink(block_size) {
            for (i, byte) in buffer[..len].iter_mut().enumerate() {
                *byte = (inode.block[i / 4] >> (i % 4 * 8)) as u8;
            }
        } else {
            let block = self.map(&inode, 0)?;
            if block == 0 {
                return Err(self.damage());
            }
            buffer[..len].copy_from_slice(&self.meta(block)?[..len]);
        }
        self.touch_atime(ino, inode)?;
        Ok(len)
    }

    /// A further name for `ino`.
    pub fn link(&mut self, ino: u32, dir: u32, name: &[u8]) -> Result<()> {
        let mut parent = self.directory_for(dir, name)?;
        let mut inode = self.inode(ino)?;
        if inode.is_dir() {
            return Err(Errno::EPERM);
        }
        if inode.links >= LINK_MAX {
            return Err(Errno::EMLINK);
        }
        if inode.links == 0 {
            return Err(Errno::ENOENT);
        }
        self.add_entry(dir, &mut parent, name, ino, entry_type(inode.mode))?;
        inode.links += 1;
        inode.ctime = self.now;
        self.put_inode(ino, &inode)
    }

    /// Removes a name; with `directory` as rmdir does. Returns the inode it named.
    pub fn unlink(&mut self, dir: u32, name: &[u8], directory: bool) -> Result<u32> {
        self.writable()?;
        check_name(name)?;
        if name == b"." {
            return Err(Errno::EINVAL);
        }
        if name == b".." {
            return Err(Errno::ENOTEMPTY);
        }
        let mut parent = self.directory(dir)?;
        let found = self.find(&parent, name)?.ok_or(Errno::ENOENT)?;
        let mut inode = self.entry_inode(found.ino)?;
        match (directory, inode.is_dir()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) if !self.is_empty(&inode)? => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.remove_entry(&found)?;
        if directory {
            parent.links = parent.links.saturating_sub(1);
        }
        self.dir_changed(dir, &mut parent)?;
        self.drop_link(found.ino, &mut inode)?;
        Ok(found.ino)
    }

    /// The inode an entry names: a free one there is damage, not a stale number.
    pub(crate) fn entry_inode(&mut self, ino: u32) -> Result<Inode> {
        match self.inode(ino) {
            Err(Errno::ESTALE) => Err(self.damage()),
            other => other,
        }
    }
}
