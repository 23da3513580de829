//! The page cache as file systems see it: pages that they lend to it, get from it and take
//! back.

use crate::cache::Key;
use crate::files::FileId;
use crate::region::Backing;
use crate::server::Server;
use crate::space::check_range;
use crate::table::{self, OWNER};
use abi::kernel::USER_END;
use abi::proto::vm::{
    CacheClean, CacheMap, CachePages, CacheRelease, CacheRun, CacheSet, CacheSetRun, Discard,
    PagesCached, Prot,
};
use abi::{Endpoint, Errno, PAGE, sabotage};

const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);

impl Server {
    /// The caller's page at `addr`, in anonymous memory of a service.
    fn cache_page(&mut self, source: Endpoint, addr: u64) -> Result<u64, Errno> {
        let (space, pool) = self.space(source)?;
        let anonymous = space
            .regions
            .at(addr)
            .is_some_and(|r| r.backing == Backing::Anonymous && r.prot.contains(Prot::WRITE));
        if !addr.is_multiple_of(PAGE) || addr >= USER_END || !anonymous {
            return Err(Errno::EINVAL);
        }
        let entry = table::get(pool.frames, space.top, addr);
        if let Some(process) = self.process_mut(source) {
            process.in_chain = true;
        }
        Ok(entry)
    }

    pub(crate) fn cache_key(dev: u64, ino: u64, offset: u64) -> Result<Key, Errno> {
        if dev >= crate::files::SHARED_MEMORY || !offset.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        Ok(Key {
            file: FileId { dev, ino },
            offset,
        })
    }

    /// [`CacheSet`].
    pub(crate) fn cache_set(&mut self, source: Endpoint, r: CacheSet) -> Result<(), Errno> {
        let entry = self.cache_page(source, r.addr)?;
        let key = Server::cache_key(r.dev, r.ino, r.offset)?;
        if entry == 0 {
            return Err(Errno::EFAULT);
        }
        let frame = table::frame(entry);
        let (_, pool) = self.space(source)?;
        match pool.cache.key_of(pool.frames, frame) {
            Some(already) if already == key => {
                self.page_ins.came(&key);
                return Ok(());
            }
            // Under another name, or others still use what was forgotten.
            Some(_) => return Err(Errno::EBUSY),
            None if pool.frames.refs(frame) != 1 => return Err(Errno::EBUSY),
            None => {}
        }
        if pool.lab.sabotage & sabotage::CACHE_NOT_SHARED != 0 {
            let copy = pool.take_copy(frame)?;
            let inserted = pool.cache_insert(key, copy);
            pool.frames.release(copy);
            return Ok(inserted?);
        }
        if pool.cache.peek(key).is_some() {
            self.withdraw_page(key);
        }
        let (space, pool) = self.space(source)?;
        pool.cache_insert(key, frame)?;
        set_entry(space, pool, r.addr, entry | OWNER)?;
        self.page_ins.came(&key);
        Ok(())
    }

    /// [`CacheSetRun`].
    pub(crate) fn cache_set_run(
        &mut self,
        source: Endpoint,
        r: CacheSetRun,
    ) -> Result<CacheRun, Errno> {
        let pages = (0..r.count).take_while(|page| {
            let at = page.checked_mul(PAGE);
            let set = at.and_then(|at| {
                Some(CacheSet {
                    addr: r.addr.checked_add(at)?,
                    dev: r.dev,
                    ino: r.ino,
                    offset: r.offset.checked_add(at)?,
                })
            });
            set.is_some_and(|set| self.cache_set(source, set).is_ok())
        });
        Ok(CacheRun {
            done: pages.count() as u64,
        })
    }

    /// [`CacheMap`].
    pub(crate) fn cache_map(&mut self, source: Endpoint, r: CacheMap) -> Result<(), Errno> {
        let old = self.cache_page(source, r.addr)?;
        let key = Server::cache_key(r.dev, r.ino, r.offset)?;
        let (space, pool) = self.space(source)?;
        let frame = pool.cache.get(key).ok_or(Errno::ENOENT)?;
        if old != 0 && table::frame(old) == frame {
            return Ok(());
        }
        let prot = space.regions.at(r.addr).map_or(READ_WRITE, |r| r.prot);
        pool.frames.share(frame);
        let entry = table::entry(frame, prot, true) | OWNER;
        if let Err(error) = set_entry(space, pool, r.addr, entry) {
            pool.frames.release(frame);
            return Err(error);
        }
        if old != 0 {
            pool.frames.release(table::frame(old));
        }
        Ok(())
    }

    /// [`CacheClean`].
    pub(crate) fn cache_clean(&mut self, _: Endpoint, r: CacheClean) -> Result<(), Errno> {
        let key = Server::cache_key(r.dev, r.ino, r.offset)?;
        let end = r.offset.checked_add(r.len).ok_or(Errno::EINVAL)?;
        self.pool.cache.set_clean(key.file, r.offset, end);
        Ok(())
    }

    /// The end of a range inside one anonymous mapping of a service.
    pub(crate) fn anonymous(
        &mut self,
        source: Endpoint,
        addr: u64,
        len: u64,
    ) -> Result<u64, Errno> {
        let end = check_range(addr, len)?;
        let (space, _) = self.space(source)?;
        match space.regions.at(addr) {
            Some(r) if r.backing == Backing::Anonymous && end <= r.end => Ok(end),
            _ => Err(Errno::EINVAL),
        }
    }

    /// [`Discard`].
    pub(crate) fn discard(&mut self, source: Endpoint, r: Discard) -> Result<(), Errno> {
        let end = self.anonymous(source, r.addr, r.len)?;
        let (space, pool) = self.space(source)?;
        space.drop_pages(pool, r.addr, end);
        Ok(())
    }

    /// [`CacheRelease`].
    pub(crate) fn cache_release(&mut self, source: Endpoint, r: CacheRelease) -> Result<(), Errno> {
        let entry = self.cache_page(source, r.addr)?;
        let (space, pool) = self.space(source)?;
        let frame = table::frame(entry);
        if entry != 0 && pool.frames.refs(frame) == 1 && pool.frames.tag(frame) == 0 {
            return set_entry(space, pool, r.addr, entry & !OWNER);
        }
        let prot = space.regions.at(r.addr).map_or(READ_WRITE, |r| r.prot);
        let fresh = pool.take()?;
        if let Err(error) = set_entry(space, pool, r.addr, table::entry(fresh, prot, true)) {
            pool.frames.release(fresh);
            return Err(error);
        }
        if entry != 0 {
            pool.frames.release(frame);
        }
        Ok(())
    }

    /// [`CachePages`].
    pub(crate) fn cache_pages(&mut self, _: Endpoint, r: CachePages) -> Result<PagesCached, Errno> {
        let Key { file, offset } = Server::cache_key(r.dev, r.ino, r.offset)?;
        let cache = &self.pool.cache;
        let end = offset.saturating_add(64 * PAGE);
        let bits = cache.range(file, offset, end);
        let pages = bits.fold(0, |bits, (at, _)| bits | 1 << ((at - offset) / PAGE));
        let any = pages != 0 || cache.range(file, 0, u64::MAX).next().is_some();
        Ok(PagesCached { pages, any })
    }
}

fn set_entry(
    space: &crate::space::Space,
    pool: &mut crate::pool::Pool,
    address: u64,
    entry: u64,
) -> Result<(), Errno> {
    if let Some(leaf) = table::leaf(pool.frames, space.top, address) {
        // It needs no memory, and so cannot fail: who has changed something else can rely on it.
        table::set_in(pool.frames, leaf, address, entry);
        return Ok(());
    }
    pool.make_room()?;
    table::Cursor::new(space.top).set(pool.frames, address, entry)?;
    Ok(())
}
