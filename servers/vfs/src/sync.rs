//! Bringing what was written to where it lasts.

use crate::absent::Absent;
use crate::state::Vfs;
use crate::vnode::mount::Mount;
use abi::proto::device::{self, numbers};
use abi::proto::{fs, vfs, vm};
use abi::{Endpoint, Errno};
use alloc::string::String;

impl Vfs {
    /// Has VM tell the file system what shared mappings have changed of a file, or with
    /// `ino` 0 of all that are mapped.
    pub async fn collect_written(&self, mount: &Mount, ino: u64) {
        if mount.is_mapped(ino) {
            let dev = mount.dev;
            let collect = vm::CollectWritten { dev, ino };
            // VM always does what it can.
            let _ = self.base.vm.ask(collect).await;
        }
    }

    /// Writes a file back for VM (msync).
    pub(crate) async fn sync_file(&self, r: vfs::SyncFile) -> Result<(), Errno> {
        let mount = self.mount_of(r.dev).ok_or(Errno::EIO)?;
        mount.peer.ask(fs::Sync { ino: r.ino }).await
    }

    /// Writes everything back.
    pub(crate) async fn sync_all(&self) -> Result<(), Errno> {
        let mounts = self.mounts.borrow().clone();
        let mut status = Ok(());
        for mount in mounts {
            self.collect_written(&mount, 0).await;
            let synced = mount.peer.ask(fs::Sync { ino: 0 }).await;
            if let Err(errno) = synced
                && errno != Errno::ENOSYS
            {
                if mount.outlives_the_machine() {
                    status = status.and(Err(errno));
                }
                let kind = String::from_utf8_lossy(&mount.kind);
                self.base
                    .machine
                    .log(format_args!("sync of {kind}: {errno}"));
            }
        }
        if let Err(errno) = self.tell_absent().await {
            self.base
                .machine
                .log(format_args!("telling what was not there: {errno}"));
        }
        status
    }

    /// Tells the host, by way of the console's driver, what was not there.
    async fn tell_absent(&self) -> Result<(), Errno> {
        let text = self
            .absent
            .as_ref()
            .map(Absent::text)
            .transpose()?
            .unwrap_or_default();
        if text.is_empty() {
            return Ok(());
        }
        let driver = self.driver(numbers::STREAM_MAJOR).ok_or(Errno::ENXIO)?;
        let grant = driver.peer.lend(&text)?;
        let write = device::Write {
            minor: numbers::ABSENT_MINOR,
            grant: grant.to(),
            len: text.len() as u64,
            nonblock: false,
            who: Endpoint::NONE,
            // A stream is nobody's terminal.
            job: (0, 0),
        };
        driver.peer.ask(write).await.map(|_| ())
    }
}
