//! Caches let go of what they hold: all that nobody uses, or some that programs need.

use crate::counters::Counters;
use crate::machine::call_vm;
use crate::state::Vfs;
use abi::proto::{fs, vfs, vm};
use abi::role::Roles;
use abi::{Endpoint, Errno};
use alloc::vec::Vec;

impl Vfs {
    /// Has the file systems that cache files in memory give back some of it. Others are not asked: one of them (proc)
    /// waits for PM, which may wait for this memory.
    pub(crate) async fn give_back(&self, r: vfs::GiveBack) -> vfs::GivenBack {
        Counters::up(&self.base.counters.giving);
        let mounts = self.mounts.borrow().clone();
        let mut asked = Vec::new();
        let mut pages = 0;
        for mount in mounts {
            let who = mount.peer.endpoint;
            let caches = Roles::FILES.admits(who) && mount.peer.check_alive().is_ok();
            if !caches || pages >= r.pages || asked.contains(&who) {
                continue;
            }
            asked.push(who);
            let more = r.pages - pages;
            let give = fs::GiveBack { pages: more };
            if let Ok(given) = mount.peer.ask(give).await {
                pages += given.pages;
            }
        }
        Counters::down(&self.base.counters.giving);
        vfs::GivenBack { pages }
    }

    /// Has every cache forget what nobody uses: names first, for they keep inodes in use; then the
    /// file systems, which share pages with VM; what VM then still has only it knows of. The file
    /// system that asks waits for the answer and is not asked itself.
    pub(crate) async fn drop_caches(
        &self,
        asker: Endpoint,
        r: vfs::DropCaches,
    ) -> Result<(), Errno> {
        if r.names {
            self.names.clear();
        }
        let mounts = self.mounts.borrow().clone();
        let alive = mounts.iter().filter(|m| m.peer.check_alive().is_ok());
        for mount in alive.filter(|m| m.peer.endpoint != asker) {
            let (data, names) = (r.data, r.names);
            let drop = fs::DropCaches { data, names };
            mount.peer.ask(drop).await?;
        }
        if r.data {
            call_vm(&*self.base.machine, vm::DropCaches {})?;
        }
        Ok(())
    }
}
