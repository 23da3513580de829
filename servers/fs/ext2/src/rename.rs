//! rename, as Linux's renameat2 has it.

use crate::device::{BlockDevice, PageStore};
use crate::dir::check_name;
use crate::layout::{Inode, LINK_MAX, entry_type};
use crate::volume::Volume;
use crate::{Errno, ROOT, Result};

/// Fail with `EEXIST` when the new name is there.
pub const NOREPLACE: u32 = 1;
/// Swap the two names.
pub const EXCHANGE: u32 = 2;

impl<D: BlockDevice, P: PageStore> Volume<D, P> {
    /// Renames `old` in `old_dir` to `new` in `new_dir`. Flags: 1 RENAME_NOREPLACE,
    /// 2 RENAME_EXCHANGE.
    pub fn rename(
        &mut self,
        old_dir: u32,
        old: &[u8],
        new_dir: u32,
        new: &[u8],
        flags: u32,
    ) -> Result<()> {
        self.writable()?;
        if flags > EXCHANGE {
            return Err(Errno::EINVAL);
        }
        for name in [old, new] {
            check_name(name)?;
            if name == b"." || name == b".." {
                return Err(Errno::EBUSY);
            }
        }
        let from = self.directory(old_dir)?;
        let to = self.directory(new_dir)?;
        let source = self.find(&from, old)?.ok_or(Errno::ENOENT)?;
        if to.links == 0 {
            return Err(Errno::ENOENT);
        }
        let inode = self.entry_inode(source.ino)?;
        let target = self.find(&to, new)?;
        if inode.is_dir() && old_dir != new_dir && self.is_below(new_dir, source.ino)? {
            return Err(Errno::EINVAL);
        }
        match target {
            None if flags == EXCHANGE => Err(Errno::ENOENT),
            Some(_) if flags == NOREPLACE => Err(Errno::EEXIST),
            Some(target) if target.ino == source.ino => Ok(()),
            Some(target) if flags == EXCHANGE => {
                let other = self.entry_inode(target.ino)?;
                if other.is_dir() && old_dir != new_dir && self.is_below(old_dir, target.ino)? {
                    return Err(Errno::EINVAL);
                }
                self.check_links(old_dir, new_dir, &inode, Some(&other))?;
                self.retarget(&source, target.ino, entry_type(other.mode))?;
                self.retarget(&target, source.ino, entry_type(inode.mode))?;
                self.moved(source.ino, inode, old_dir, new_dir)?;
                self.moved(target.ino, other, new_dir, old_dir)?;
                self.touch_dirs(old_dir, new_dir)
            }
            Some(target) => {
                let mut other = self.entry_inode(target.ino)?;
                match (inode.is_dir(), other.is_dir()) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    (true, true) if !self.is_empty(&other)? => return Err(Errno::ENOTEMPTY),
                    _ => {}
                }
                self.retarget(&target, source.ino, entry_type(inode.mode))?;
                self.remove_entry(&source)?;
                if other.is_dir() {
                    let mut dir = self.directory(new_dir)?;
                    dir.links = dir.links.saturating_sub(1);
                    self.put_inode(new_dir, &dir)?;
                }
                self.moved(source.ino, inode, old_dir, new_dir)?;
                self.touch_dirs(old_dir, new_dir)?;
                self.drop_link(target.ino, &mut other)
            }
            None => {
                self.check_links(old_dir, new_dir, &inode, None)?;
                let mut to = to;
                self.add_entry(new_dir, &mut to, new, source.ino, entry_type(inode.mode))?;
                // The new entry may have split or filled the space around the old one.
                let from = self.directory(old_dir)?;
                let source = self.find(&from, old)?.ok_or(Errno::EIO)?;
                self.remove_entry(&source)?;
                self.moved(source.ino, inode, old_dir, new_dir)?;
                self.touch_dirs(old_dir, new_dir)
            }
        }
    }

    /// `EMLINK` when a directory gains one subdirectory too many.
    fn check_links(
        &mut self,
        old_dir: u32,
        new_dir: u32,
        inode: &Inode,
        other: Option<&Inode>,
    ) -> Result<()> {
        let other_is_dir = other.is_some_and(Inode::is_dir);
        if old_dir == new_dir || inode.is_dir() == other_is_dir {
            return Ok(());
        }
        let gains = if inode.is_dir() { new_dir } else { old_dir };
        if self.directory(gains)?.links >= LINK_MAX {
            return Err(Errno::EMLINK);
        }
        Ok(())
    }

    /// An inode's entry went from one directory to another: its change time, and for a
    /// directory its `..` and the parents' links.
    fn moved(&mut self, ino: u32, mut inode: Inode, from: u32, to: u32) -> Result<()> {
        inode.ctime = self.now;
        self.put_inode(ino, &inode)?;
        if !inode.is_dir() || from == to {
            return Ok(());
        }
        match self.find(&inode, b"..")? {
            Some(dotdot) => self.retarget(&dotdot, to, 2)?,
            None => return Err(self.damage()),
        }
        let mut dir = self.directory(from)?;
        dir.links = dir.links.saturating_sub(1);
        self.put_inode(from, &dir)?;
        let mut dir = self.directory(to)?;
        dir.links += 1;
        self.put_inode(to, &dir)
    }

    fn touch_dirs(&mut self, one: u32, other: u32) -> Result<()> {
        for ino in [one, other] {
            let mut dir = self.directory(ino)?;
            self.dir_changed(ino, &mut dir)?;
        }
        Ok(())
    }

    /// Whether directory `dir` is `ancestor` or somewhere below it.
    fn is_below(&mut self, dir: u32, ancestor: u32) -> Result<bool> {
        let mut at = dir;
        for _ in 0..self.sb.inodes {
            if at == ancestor {
                return Ok(true);
            }
            if at == ROOT {
                return Ok(false);
            }
            let inode = self.directory(at)?;
            at = match self.find(&inode, b"..")? {
                Some(parent) => parent.ino,
                None => return Err(self.damage()),
            };
        }
        Err(self.damage())
    }
}
