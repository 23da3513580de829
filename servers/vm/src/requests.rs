//! The protocol of `abi::proto::vm`: who may ask what, and what it does.

use crate::ahead::OWN;
use crate::fault::Access;
use crate::files::FileId;
use crate::jobs::Origin;
use crate::region::{Backing, Flags, Region};
use crate::sanity;
use crate::server::Server;
use crate::space::{Limits, check_range};
use crate::table;
use abi::message::{self, Answer, Handled, WORDS, answer_result, transaction};
use abi::proto::vm::{
    AllocContiguous, AllowPhysical, BATCH_MAX, Batch, BatchDone, CacheClean, CacheForget, CacheMap,
    CachePages, CacheRelease, CacheSet, CacheSetRun, CollectWritten, Contiguous, Discard,
    DropCaches, Dropped, Exit, Footprint, Force, Fork, FrameFigures, HandleMemory, MapFlags,
    MapMax, MapMaxNow, MapPhysical, Mapped, MappedPhysical, Mmap, Munmap, NewSpace, ObjectAt,
    PROCCTL_CLEAR, Populate, ProcCtl, Prot, Protect, RegionAt, RegionInfo, ServiceFrames, SetBreak,
    SetLimits, SetMapMax, SpaceFigures, SpaceInfo, VfsMmap, VmCounters, VmFigures, VmFrames,
};
use abi::proto::{pm, vfs, vm as protocol};
use abi::role::Roles;
use abi::{Class, Endpoint, Errno, Message, PAGE, Request};

/// The most physically contiguous memory one request gets.
const CONTIGUOUS_MAX: u64 = 16 << 20;

/// Those who may do with others' memory what a message may say of memory: it is the contents
/// of the message that need the right, not the message.
const TRUSTED: Roles = Roles::VFS.or(Roles::RS);

const READ_WRITE: Prot = Prot::READ.union(Prot::WRITE);

impl message::Server for Server {
    fn trusts_all(&self) -> bool {
        self.pool.lab.sabotage & abi::sabotage::VM_TRUSTS_ALL != 0
    }
}

abi::serve! { [] Server;
    Mmap => |vm, from, r| vm.mmap(from, r);
    Munmap => |vm, from, r| vm.munmap(from, r);
    VfsMmap => |vm, _, r| vm.vfs_mmap(r);
    ProcCtl => |vm, _, r| vm.proc_ctl(r);
    HandleMemory => |vm, vfs, r| {
        let access = if r.write { Access::Write } else { Access::Read };
        vm.handle_memory(Origin::Vfs(vfs), r.who, (r.addr, r.len), access, true);
        Answer::Later
    };
    MapPhysical => |vm, from, r| vm.map_physical(from, r);
    AllowPhysical => |vm, _, r| vm.allow_physical(r);
    AllocContiguous => |vm, from, r| vm.alloc_contiguous(from, r);
    Fork => |vm, _, r| vm.fork(r.parent, r.child, r.share);
    Exit => |vm, _, r| {
        let known = vm.process(r.who).is_some();
        known.then(|| vm.exit(r.who)).ok_or(Errno::ESRCH)
    };
    NewSpace => |vm, _, r| vm.new_space(r.who, r.service);
    SetBreak => |vm, _, r| vm.space(r.who).and_then(|(space, _)| space.set_layout(r.start, r.mmap_top));
    CacheSet => |vm, from, r| vm.cache_set(from, r);
    CacheSetRun => |vm, from, r| vm.cache_set_run(from, r);
    CacheMap => |vm, from, r| vm.cache_map(from, r);
    CacheForget => |vm, from, r| vm.cache_forget(from, r);
    CacheRelease => |vm, from, r| vm.cache_release(from, r);
    CachePages => |vm, from, r| vm.cache_pages(from, r);
    CacheClean => |vm, from, r| vm.cache_clean(from, r);
    CollectWritten => |vm, from, r| {
        vm.collect_written(r.dev, r.ino);
        // The pages first: VFS passes them on before it goes on; RS does when VFS died.
        vm.tell_written_to(from.who);
        Ok(())
    };
    Discard => |vm, from, r| vm.discard(from, r);
    Populate => |vm, from, r| vm.populate(from, r);
    DropCaches => |vm, _, _| {
        let pages = vm.pool.cache.evict(vm.pool.frames, usize::MAX) as u64;
        Ok(Dropped { pages })
    };
    VmFrames => |vm, _, _| vm.frame_figures();
    ServiceFrames => |vm, _, r| vm.service_frames(r.slot).ok_or(Errno::ENOENT);
    Footprint => |vm, _, r| vm.footprint_of(r);
    SpaceInfo => |vm, _, r| vm.space_info(r);
    VmCounters => |vm, _, _| vm.counters();
    RegionAt => |vm, _, r| vm.region_at(r);
    SetLimits => |vm, _, r| vm.space(r.who).map(|(space, _)| {
        space.limits = Limits {
            stack: r.stack,
            data: r.data,
            address_space: r.address_space,
            locked: r.locked,
        };
    });
    Protect => |vm, _, r| vm.space(r.target).and_then(|(space, pool)| {
        let end = check_range(r.addr, r.len)?;
        space.protect(pool, r.addr, end, r.prot)
    });
    MapMax => |vm, _, _| Ok(MapMaxNow { regions: vm.pool.map_max as u64 });
    SetMapMax => |vm, _, r| match usize::try_from(r.regions) {
        Ok(regions) => {
            vm.pool.map_max = regions;
            Ok(())
        }
        Err(_) => Err(Errno::EINVAL),
    };
    Batch => |vm, from, r| vm.batch(from, r);
    Force => |vm, from, r| vm.force(from, r);
    ObjectAt => |vm, from, r| vm.object_at(from, r);
}

impl Server {
    /// What VM asked is answered.
    pub(crate) fn answered(
        &mut self,
        source: Endpoint,
        class: Class,
        message: &Message,
    ) -> Handled {
        let admitted = abi::proto::admit(source, class, message.kind);
        if admitted.is_ok() {
            let txn = transaction(message);
            match message.kind {
                vfs::PageIn::ANSWER => {
                    self.page_in_done(txn, answer_result::<vfs::PageIn>(message));
                }
                vfs::FdLookup::ANSWER => {
                    self.fd_lookup_done(txn, answer_result::<vfs::FdLookup>(message));
                }
                vfs::SyncFile::ANSWER => {
                    self.sync_done(txn, answer_result::<vfs::SyncFile>(message));
                }
                vfs::PunchFile::ANSWER => {
                    self.sync_done(txn, answer_result::<vfs::PunchFile>(message));
                }
                vfs::GiveBack::ANSWER => {
                    let given = answer_result::<vfs::GiveBack>(message);
                    self.gave_back(given.map_or(0, |given| given.pages));
                }
                pm::OutOfMemory::ANSWER => {
                    let killed = answer_result::<pm::OutOfMemory>(message);
                    self.out_of_memory_done(killed.map_or(0, |killed| killed.processes));
                }
                _ => {}
            }
        }
        Handled {
            answer: None,
            refused: admitted.err(),
        }
    }

    /// Who owns the frames, if VM's data make sense.
    fn frame_figures(&mut self) -> Result<FrameFigures, Errno> {
        let lost = self.audit().map_err(|why| match &*why {
            sanity::NO_MEMORY => Errno::ENOMEM,
            _ => Errno::EIO,
        })?;
        Ok(FrameFigures {
            lost,
            ..self.owners()?
        })
    }

    /// Several calls.
    fn batch(&mut self, source: Endpoint, r: Batch) -> Result<BatchDone, Errno> {
        if r.count > BATCH_MAX || !r.address.is_multiple_of(8) {
            return Err(Errno::EINVAL);
        }
        let mut at = r.address;
        for done in 0..r.count {
            let (space, pool) = self.space(source)?;
            let [kind, words @ ..]: [u64; 1 + WORDS] =
                space.words(pool, at).ok_or(Errno::EFAULT)?;
            let message = Message { kind, words };
            at = at.wrapping_add(size_of::<Message>() as u64);
            // None in another: its replies would have nowhere to go.
            let reply = match message.kind {
                Batch::KIND => Some(Message::error(Errno::EINVAL)),
                _ => protocol::serve(self, source, Class::Call, &message).answer,
            };
            let status = reply.map_or(0, |reply| reply.kind);
            if let Err(errno) = abi::errno::result_from_word(status) {
                let status = Err(errno);
                return Ok(BatchDone { done, status });
            }
        }
        Ok(BatchDone {
            done: r.count,
            status: Ok(()),
        })
    }

    /// Whether `source` may do with others' memory what a message may say of memory.
    fn trusts(&self, source: Endpoint) -> bool {
        TRUSTED.admits(source) || message::Server::trusts_all(self)
    }

    /// Whose memory `source` means by `target`, if it may.
    fn target(&self, source: Endpoint, target: Endpoint) -> Result<Endpoint, Errno> {
        if target == Endpoint::SELF || target == source {
            return Ok(source);
        }
        if !self.trusts(source) {
            return Err(Errno::EPERM);
        }
        Ok(target)
    }

    fn mmap(&mut self, source: Endpoint, r: Mmap) -> Result<Mapped, Errno> {
        let target = self.target(source, r.target)?;
        if target != source && !r.flags.contains(MapFlags::THIRD_PARTY) {
            return Err(Errno::EINVAL);
        }
        if r.flags
            .intersects(MapFlags::UNINITIALIZED | MapFlags::THIRD_PARTY)
            && !self.trusts(source)
        {
            return Err(Errno::EPERM);
        }
        let (space, _) = self.space(target)?;
        let len = check_range(0, r.len)?;
        let start = if r.flags.contains(MapFlags::FIXED) {
            r.addr
        } else {
            space.find(r.addr, len)?
        };
        let end = check_range(start, len)?;
        let cache = r.flags.contains(MapFlags::CACHE);
        if cache && !(Roles::FILES.admits(source) && target == source) {
            return Err(Errno::EPERM);
        }
        let (space, pool) = self.space(target)?;
        let flags = if cache {
            Flags::CACHE
        } else if r.flags.contains(MapFlags::STACK) {
            Flags::STACK
        } else if target != source {
            Flags::DATA
        } else {
            Flags::empty()
        };
        space.map(pool, Region::anonymous(start, end, r.prot, flags))?;
        if cache {
            self.add_cache();
            return Ok(Mapped { addr: start });
        }
        if r.flags.contains(MapFlags::PREALLOC) {
            let zero = !r.flags.contains(MapFlags::UNINITIALIZED);
            if let Err(error) = space.populate(pool, start, end, zero) {
                let _ = space.unmap(pool, start, end);
                return Err(error.into());
            }
        }
        Ok(Mapped { addr: start })
    }

    fn munmap(&mut self, source: Endpoint, r: Munmap) -> Result<(), Errno> {
        let target = self.target(source, r.target)?;
        let end = check_range(r.addr, r.len)?;
        let (space, pool) = self.space(target)?;
        space.unmap(pool, r.addr, end)
    }

    fn vfs_mmap(&mut self, r: VfsMmap) -> Result<(), Errno> {
        let clear_end = r.prot_clearend >> 16;
        let end = check_range(r.addr, r.len)?;
        let valid = r.offset.is_multiple_of(PAGE)
            && r.len.is_multiple_of(PAGE)
            && r.prot_clearend & 0xfff8 == 0
            && clear_end < PAGE
            && r.offset.checked_add(r.len).is_some();
        let file = FileId {
            dev: r.dev,
            ino: r.ino,
        };
        if !valid || r.dev >= crate::files::SHARED_MEMORY {
            return Err(Errno::EINVAL);
        }
        let (space, pool) = self.space(r.target)?;
        let prot = Prot::from_bits_truncate(r.prot_clearend & 7);
        let data = prot.contains(Prot::WRITE);
        let region = Region {
            start: r.addr,
            end,
            prot,
            flags: if data {
                Flags::MAY_WRITE | Flags::DATA
            } else {
                Flags::MAY_WRITE
            },
            backing: Backing::File {
                file,
                offset: r.offset,
            },
            clear_end: clear_end as u16,
        };
        space.map(pool, region)?;
        if data {
            // The data of a program that is about to run.
            let some = end.min(r.addr.saturating_add(OWN));
            space.own(pool, &region, r.addr, some);
        }
        pool.files.hold(file);
        Ok(())
    }

    fn proc_ctl(&mut self, r: ProcCtl) -> Result<(), Errno> {
        match r.param {
            PROCCTL_CLEAR => self.clear(r.who),
            _ => Err(Errno::EINVAL),
        }
    }

    fn allow_physical(&mut self, r: AllowPhysical) -> Result<(), Errno> {
        let end = r.phys.checked_add(r.len).ok_or(Errno::EINVAL)?;
        let process = self.process_mut(r.target).ok_or(Errno::ESRCH)?;
        process.physical.push((r.phys, end));
        Ok(())
    }

    fn map_physical(&mut self, source: Endpoint, r: MapPhysical) -> Result<MappedPhysical, Errno> {
        let len = check_range(0, r.len)?;
        let phys_end = r.phys.checked_add(len).ok_or(Errno::EINVAL)?;
        if !r.phys.is_multiple_of(PAGE) || phys_end > abi::kernel::HOLE.end {
            return Err(Errno::EINVAL);
        }
        let process = self.process(source).ok_or(Errno::ESRCH)?;
        let allowed = process.physical.iter().any(|&(start, end)| {
            // A window smaller than a page opens the page: nothing smaller can be mapped.
            abi::page_down(start) <= r.phys && abi::page_up(end).is_some_and(|e| phys_end <= e)
        });
        let mut pages = (r.phys..phys_end).step_by(PAGE as usize);
        let memory = pages.any(|p| self.pool.frames.managed(table::frame(p)));
        if !allowed || memory {
            return Err(Errno::EPERM);
        }
        let (space, pool) = self.space(source)?;
        let start = space.find(0, len)?;
        let region = Region {
            start,
            end: start + len,
            prot: READ_WRITE,
            flags: Flags::SHARED | Flags::MAY_WRITE,
            backing: Backing::Physical { base: r.phys },
            clear_end: 0,
        };
        space.map(pool, region)?;
        for page in (start..start + len).step_by(PAGE as usize) {
            // Drivers must not fault; without room now the fault does it later.
            let _ = space.access(pool, page, Access::Write);
        }
        Ok(MappedPhysical { addr: start })
    }

    fn alloc_contiguous(
        &mut self,
        source: Endpoint,
        r: AllocContiguous,
    ) -> Result<Contiguous, Errno> {
        let len = check_range(0, r.len)?;
        if len > CONTIGUOUS_MAX {
            return Err(Errno::ENOMEM);
        }
        if let Some(process) = self.process_mut(source) {
            // It drives a device, perhaps the one that page-ins read from.
            process.in_chain = true;
        }
        let (space, pool) = self.space(source)?;
        let start = space.find(0, len)?;
        let count = (len / PAGE) as u32;
        space.map(
            pool,
            Region::anonymous(start, start + len, READ_WRITE, Flags::NO_FORK),
        )?;
        let entered = pool.take_run(count).and_then(|first| {
            space.enter_run(pool, start, first, count, READ_WRITE)?;
            Ok(first)
        });
        match entered {
            Ok(first) => Ok(Contiguous {
                addr: start,
                phys: first.address(),
            }),
            Err(error) => {
                let _ = space.unmap(pool, start, start + len);
                Err(error.into())
            }
        }
    }

    fn space_info(&mut self, r: SpaceInfo) -> Result<SpaceFigures, Errno> {
        let (space, pool) = self.space(r.who)?;
        let (resident, shared) = space.resident(pool);
        Ok(SpaceFigures {
            size: space.size(),
            resident: resident * PAGE,
            shared: shared * PAGE,
            brk: space.break_end,
        })
    }

    fn counters(&mut self) -> Result<VmFigures, Errno> {
        if self.pool.lab.present()
            && let Err(reason) = self.audit()
        {
            panic!("sanity: {reason}");
        }
        let frames = self.pool.frames;
        let cached = self.pool.cache.len() as u64 + self.cached_elsewhere();
        let used = (frames.total() - frames.free() - frames.own()) as u64;
        Ok(VmFigures {
            total: frames.total() as u64 * PAGE,
            free: frames.free() as u64 * PAGE,
            cached: cached * PAGE,
            spaces: self.spaces().count() as u64,
            regions: self.program_regions(),
            waiting: (self.page_ins.len()
                + self.later.len()
                + self.shortage.starved.len()
                + self.pending_maps.len()
                + self.pending_syncs.len()) as u64,
            used_frames: used - cached.min(used),
        })
    }

    fn region_at(&mut self, r: RegionAt) -> Result<RegionInfo, Errno> {
        let (space, _) = self.space(r.who)?;
        let index = usize::try_from(r.index).map_err(|_| Errno::ENOENT)?;
        let region = space.regions.as_slice().get(index).ok_or(Errno::ENOENT)?;
        let bit = |set: bool, n: u32| (set as u64) << n;
        let file = region.file().filter(|file| !file.is_memory());
        Ok(RegionInfo {
            start: region.start,
            end: region.end,
            flags: region.prot.bits()
                | bit(!region.private(), 8)
                | bit(region.flags.contains(Flags::STACK), 9)
                | bit(region.flags.contains(Flags::HEAP), 10)
                | bit(file.is_some(), 11),
            dev: file.map_or(0, |f| f.dev),
            ino: file.map_or(0, |f| f.ino),
            offset: file.map_or(0, |_| region.offset_of(region.start)),
        })
    }
}
