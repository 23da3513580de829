//! Operations on names: look up, create, link, remove, rename, symlinks.

use abi::fs::{NAME_MAX, PATH_MAX};

use crate::attr::New;
use crate::dir::Directory;
use crate::file::Contents;
use crate::store::PageStore;
use crate::tree::{
    BLOCK, CHAR, DIRECTORY, Data, FIFO, REGULAR, SOCKET, SYMLINK, TYPE, Tmpfs, entry_cost,
};
use crate::{Errno, Result};

/// Most links of an inode.
const LINK_MAX: u32 = 65_000;
/// Flags of rename.
const NOREPLACE: u32 = 1;
const EXCHANGE: u32 = 2;

fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if name.contains(&b'/') || name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

impl<P: PageStore> Tmpfs<P> {
    /// The inode that `name` means in directory `dir`.
    pub fn lookup(&self, dir: u64, name: &[u8]) -> Result<u64> {
        let directory = self.directory(dir)?;
        check_name(name)?;
        match name {
            b"." => Ok(dir),
            b".." => Ok(directory.parent),
            _ => directory.get(name).ok_or(Errno::ENOENT),
        }
    }

    /// Checks that `name` can be entered into `dir`, which must still have a name itself.
    fn check_entry(&self, dir: u64, name: &[u8]) -> Result<()> {
        self.writable()?;
        match self.lookup(dir, name) {
            Ok(_) => Err(Errno::EEXIST),
            Err(Errno::ENOENT) if !name.is_empty() && self.node(dir)?.nlink > 0 => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn add_named(
        &mut self,
        dir: u64,
        name: &[u8],
        mode: u32,
        new: &New,
        data: Data,
    ) -> Result<u64> {
        self.check_entry(dir, name)?;
        let directory = mode & TYPE == DIRECTORY;
        if directory && self.node(dir)?.nlink >= LINK_MAX {
            return Err(Errno::EMLINK);
        }
        let charge = self.charge(new.uid, entry_cost(name))?;
        let new = New { mode, ..*new };
        let ino = self.add(new, 1 + directory as u32, data)?;
        self.directory_mut(dir)?.add(name, ino, charge);
        self.node_mut(dir)?.nlink += directory as u32;
        Ok(ino)
    }

    /// Creates what the type in `new.mode` says (not a symlink).
    pub fn create(&mut self, dir: u64, name: &[u8], new: New) -> Result<u64> {
        let data = match new.mode & TYPE {
            REGULAR => Data::File(Contents::default()),
            DIRECTORY => Data::Directory(Directory::new(dir)),
            CHAR | BLOCK | FIFO | SOCKET => Data::None,
            _ => return Err(Errno::EINVAL),
        };
        let node = matches!(new.mode & TYPE, CHAR | BLOCK);
        let rdev = if node { new.rdev } else { 0 };
        let mode = new.mode & (TYPE | 0o7777);
        self.add_named(dir, name, mode, &New { rdev, ..new }, data)
    }

    /// Creates a regular file that has no name. Somebody must [`Tmpfs::hold`] it at once.
    pub fn create_unnamed(&mut self, new: New) -> Result<u64> {
        self.writable()?;
        if new.mode & TYPE != REGULAR {
            return Err(Errno::EINVAL);
        }
        let new = New {
            mode: new.mode & (TYPE | 0o7777),
            rdev: 0,
            ..new
        };
        self.add(new, 0, Data::File(Contents::default()))
    }

    /// A symbolic link to `target`.
    pub fn symlink(&mut self, dir: u64, name: &[u8], target: &[u8], new: New) -> Result<u64> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let new = New { rdev: 0, ..new };
        let data = Data::Symlink(target.into());
        self.add_named(dir, name, SYMLINK | 0o777, &new, data)
    }

    /// The target of a symlink.
    pub fn readlink(&self, ino: u64) -> Result<&[u8]> {
        match &self.node(ino)?.data {
            Data::Symlink(target) => Ok(target),
            _ => Err(Errno::EINVAL),
        }
    }

    /// A further name for `ino`.
    pub fn link(&mut self, ino: u64, dir: u64, name: &[u8]) -> Result<()> {
        self.check_entry(dir, name)?;
        let now = self.now;
        let node = self.node_mut(ino)?;
        if node.is_dir() {
            return Err(Errno::EPERM);
        }
        if node.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        if node.nlink >= LINK_MAX {
            return Err(Errno::EMLINK);
        }
        let owner = node.uid;
        let charge = self.charge(owner, entry_cost(name))?;
        let node = self.node_mut(ino)?;
        node.nlink += 1;
        node.ctime = now;
        self.directory_mut(dir)?.add(name, ino, charge);
        Ok(())
    }

    /// Removes a name; with `directory` as rmdir does. Returns the inode it named.
    pub fn unlink(&mut self, dir: u64, name: &[u8], directory: bool) -> Result<u64> {
        self.writable()?;
        match name {
            b"." => return Err(Errno::EINVAL),
            b".." => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        let ino = self.lookup(dir, name)?;
        match (directory, self.node(ino)?.is_dir()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) if self.directory(ino)?.len() > 0 => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.directory_mut(dir)?.remove(name);
        self.drop_name(dir, ino)?;
        Ok(ino)
    }

    /// `ino` lost its name in `dir`.
    fn drop_name(&mut self, dir: u64, ino: u64) -> Result<()> {
        let now = self.now;
        let node = self.node_mut(ino)?;
        let directory = node.is_dir();
        node.nlink = if directory { 0 } else { node.nlink - 1 };
        node.ctime = now;
        if directory {
            self.node_mut(dir)?.nlink -= 1;
        }
        self.free_unused(ino);
        Ok(())
    }

    /// Renames, as Linux's renameat2. Flags: 1 RENAME_NOREPLACE, 2 RENAME_EXCHANGE.
    pub fn rename(
        &mut self,
        old_dir: u64,
        old: &[u8],
        new_dir: u64,
        new: &[u8],
        flags: u32,
    ) -> Result<()> {
        self.writable()?;
        if flags > EXCHANGE {
            return Err(Errno::EINVAL);
        }
        if [old, new].iter().any(|n| *n == b"." || *n == b"..") {
            return Err(Errno::EBUSY);
        }
        let source = self.lookup(old_dir, old)?;
        let target = match self.lookup(new_dir, new) {
            Ok(ino) => Some(ino),
            Err(Errno::ENOENT) if !new.is_empty() => None,
            Err(errno) => return Err(errno),
        };
        if self.node(new_dir)?.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        let is_dir = self.node(source)?.is_dir();
        if is_dir && self.is_below(new_dir, source)? {
            return Err(Errno::EINVAL);
        }
        match target {
            None if flags == EXCHANGE => return Err(Errno::ENOENT),
            None => {}
            Some(_) if flags == NOREPLACE => return Err(Errno::EEXIST),
            Some(target) if target == source => return Ok(()),
            Some(target) if flags == EXCHANGE => {
                if self.node(target)?.is_dir() && self.is_below(old_dir, target)? {
                    return Err(Errno::EINVAL);
                }
                self.directory_mut(old_dir)?.set(old, target);
                self.directory_mut(new_dir)?.set(new, source);
                self.moved(source, old_dir, new_dir)?;
                return self.moved(target, new_dir, old_dir);
            }
            Some(target) => match (is_dir, self.node(target)?.is_dir()) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) if self.directory(target)?.len() > 0 => {
                    return Err(Errno::ENOTEMPTY);
                }
                _ => {}
            },
        }
        if target.is_none() {
            let payer = self.node(source)?.payer();
            let charge = self.directory_mut(old_dir)?.charge_mut(old);
            if !charge.is_some_and(|charge| charge.resize(payer, entry_cost(new))) {
                return Err(Errno::ENOSPC);
            }
        }
        let charge = self.directory_mut(old_dir)?.remove(old);
        let to = self.directory_mut(new_dir)?;
        match charge {
            Some(charge) if target.is_none() => to.add(new, source, charge),
            _ => to.set(new, source),
        }
        self.moved(source, old_dir, new_dir)?;
        match target {
            Some(target) => self.drop_name(new_dir, target),
            None => Ok(()),
        }
    }

    /// An entry went from one directory to another.
    fn moved(&mut self, ino: u64, from: u64, to: u64) -> Result<()> {
        let now = self.now;
        let node = self.node_mut(ino)?;
        node.ctime = now;
        if let Data::Directory(directory) = &mut node.data {
            directory.parent = to;
            self.node_mut(from)?.nlink -= 1;
            self.node_mut(to)?.nlink += 1;
        }
        Ok(())
    }

    /// Whether directory `dir` is `ancestor` or somewhere below it.
    fn is_below(&self, dir: u64, ancestor: u64) -> Result<bool> {
        let mut at = dir;
        while at != ancestor {
            if at == self.root() {
                return Ok(false);
            }
            at = self.directory(at)?.parent;
        }
        Ok(true)
    }
}
