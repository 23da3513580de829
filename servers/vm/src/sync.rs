//! msync(MS_SYNC): the call is answered when VFS says that the files are on their disks. VM
//! goes on meanwhile.

use crate::files::FileId;
use crate::region::Backing;
use crate::server::Server;
use abi::proto::vfs::SyncFile;
use abi::proto::vm::SyncDone;
use abi::{Endpoint, Errno};
use alloc::vec::Vec;

/// A call that waits.
#[derive(Debug)]
pub struct PendingSync {
    who: Endpoint,
    /// Files that VFS was not asked for yet.
    rest: Vec<FileId>,
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
        let mut rest: Vec<FileId> = Vec::new();
        for region in space.regions.overlapping(start, end) {
            match region.backing {
                Backing::File { file, .. }
                    if !region.private() && !file.is_memory() && !rest.contains(&file) =>
                {
                    rest.push(file);
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

    /// Asks for the next file; whether there was none.
    fn sync_next(&mut self, mut sync: PendingSync) -> bool {
        let Some(FileId { dev, ino }) = sync.rest.pop() else {
            return true;
        };
        let txn = self.new_txn();
        self.pending_syncs.insert(txn, sync);
        self.post(Endpoint::VFS, SyncFile { txn, dev, ino });
        false
    }

    /// VFS answered.
    pub(crate) fn sync_done(&mut self, done: SyncDone) {
        let Some(mut sync) = self.pending_syncs.remove(&done.txn) else {
            return;
        };
        if self.process(sync.who).is_none() {
            return;
        }
        let (who, result) = (sync.who, sync.result.and(done.status.map(|()| 0)));
        sync.result = result;
        if self.sync_next(sync) {
            self.reply_status(who, result);
        }
    }
}
