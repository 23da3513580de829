//! msync(MS_SYNC) and MADV_REMOVE: the call is answered when VFS says that the files are on their
//! disks, or have their holes. VM goes on meanwhile.

use crate::files::FileId;
use crate::region::{Backing, Flags};
use crate::server::Server;
use crate::withdraw::{Private, Withdrawn};
use abi::proto::vfs::{PunchFile, SyncFile};
use abi::{Endpoint, Errno};
use alloc::vec::Vec;

/// What VFS is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    /// Write the file back.
    Sync(FileId),
    /// Make a hole: first byte, bytes.
    Punch(FileId, u64, u64),
}

/// A call that waits.
#[derive(Debug)]
pub struct PendingSync {
    who: Endpoint,
    /// What VFS was not asked for yet, the last first.
    rest: Vec<Task>,
    /// The first failure.
    result: Result<u64, Errno>,
}

impl Server {
    /// Has the files written back that `[start, end)` of `who` shares; the result when there
    /// are none. What was changed must have been collected.
    pub(crate) fn sync_range(
        &mut self,
        who: Endpoint,
        start: u64,
        end: u64,
    ) -> Result<Option<u64>, Errno> {
        let (space, _) = self.space(who)?;
        let mut rest: Vec<Task> = Vec::new();
        for region in space.regions.overlapping(start, end) {
            match region.backing {
                Backing::File { file, .. }
                    if !region.private()
                        && !file.is_memory()
                        && !rest.contains(&Task::Sync(file)) =>
                {
                    rt::room::push(&mut rest, Task::Sync(file))?;
                }
                _ => {}
            }
        }
        // The pages first: the file system must know of them when it writes back.
        self.tell_written();
        let sync = PendingSync {
            who,
            rest,
            result: Ok(0),
        };
        Ok(self.sync_next(sync).then_some(0))
    }

    /// MADV_REMOVE of `[start, end)`: a hole in every file that is mapped there. The result, when
    /// VFS need not be asked; `EINVAL` where there is no file, `EACCES` where it cannot be written.
    pub(crate) fn remove_range(
        &mut self,
        who: Endpoint,
        start: u64,
        end: u64,
    ) -> Result<Option<u64>, Errno> {
        let (space, _) = self.space(who)?;
        let mut rest = Vec::new();
        let mut result = Ok(0);
        for region in space.regions.overlapping(start, end) {
            let Backing::File { file, .. } = region.backing else {
                result = Err(Errno::EINVAL);
                break;
            };
            if region.private() || !region.flags.contains(Flags::MAY_WRITE) {
                result = Err(Errno::EACCES);
                break;
            }
            let (from, to) = (region.start.max(start), region.end.min(end));
            let task = Task::Punch(file, region.offset_of(from), to - from);
            rt::room::push(&mut rest, task)?;
        }
        if result.is_ok() && !space.regions.covers(start, end) {
            result = Err(Errno::ENOMEM);
        }
        rest.reverse();
        let sync = PendingSync { who, rest, result };
        match self.sync_next(sync) {
            true => result.map(Some),
            false => Ok(None),
        }
    }

    /// Asks for the next file; whether there was none.
    fn sync_next(&mut self, mut sync: PendingSync) -> bool {
        loop {
            match sync.rest.pop() {
                None => return true,
                Some(Task::Punch(file, offset, len)) if file.is_memory() => {
                    self.withdraw(Withdrawn {
                        dev: file.dev,
                        ino: Some(file.ino),
                        from: offset,
                        to: offset + len,
                        private: Private::Follow,
                    });
                }
                Some(task) => {
                    let txn = self.new_txn();
                    self.pending_syncs.insert(txn, sync);
                    match task {
                        Task::Sync(FileId { dev, ino }) => {
                            self.ask_as(Endpoint::VFS, txn, SyncFile { dev, ino });
                        }
                        Task::Punch(FileId { dev, ino }, offset, len) => {
                            let punch = PunchFile {
                                dev,
                                ino,
                                offset,
                                len,
                            };
                            self.ask_as(Endpoint::VFS, txn, punch);
                        }
                    }
                    return false;
                }
            }
        }
    }

    /// VFS answered.
    pub(crate) fn sync_done(&mut self, txn: u64, status: Result<(), Errno>) {
        let Some(mut sync) = self.pending_syncs.remove(&txn) else {
            return;
        };
        if self.process(sync.who).is_none() {
            return;
        }
        // What was done comes before what stopped the call.
        let (who, result) = (sync.who, status.map(|()| 0).and(sync.result));
        sync.result = result;
        if self.sync_next(sync) {
            self.reply_status(who, result);
        }
    }
}
