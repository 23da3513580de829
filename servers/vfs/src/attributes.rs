//! Attributes of files, asked of their file systems and changed there.

use crate::state::Caller;
use crate::vnode::Vnode;
use abi::Errno;
use abi::fs::{Attributes, SetAttributes};
use abi::proto::fs;
use zerocopy::IntoBytes;

impl Caller {
    /// All attributes of a file.
    pub async fn attributes(&self, vnode: &Vnode) -> Result<Attributes, Errno> {
        let mut attributes = Attributes::default();
        let peer = &vnode.mount.peer;
        let grant = peer.lend_mut(attributes.as_mut_bytes())?;
        peer.ask(fs::GetAttr {
            ino: vnode.ino,
            grant: grant.to(),
            who: self.who(),
        })
        .await?;
        drop(grant);
        if !vnode.mount.is_proc() {
            vnode.set_size(attributes.size);
        }
        Ok(attributes)
    }

    /// Applies a change and takes over what the file system says of it.
    pub async fn set_attributes(&self, vnode: &Vnode, change: SetAttributes) -> Result<(), Errno> {
        let peer = &vnode.mount.peer;
        let grant = peer.lend(change.as_bytes())?;
        let changed = peer
            .ask(fs::SetAttr {
                ino: vnode.ino,
                grant: grant.to(),
            })
            .await;
        drop(grant);
        vnode.update(&changed?.into());
        Ok(())
    }
}
