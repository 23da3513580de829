//! Arguments of Linux calls: descriptors and paths.

use crate::file::OpenFile;
use crate::namei::{Follow, Node};
use crate::state::Caller;
use crate::vnode::Vnode;
use abi::Errno;
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::general as nr;

/// Arguments of a call.
pub type Args = [u64; 6];

/// A descriptor argument: its low 32 bits.
pub const fn fd(arg: u64) -> i32 {
    arg as i32
}

impl Caller {
    /// The path argument at `address`.
    pub async fn path(&self, address: u64) -> Result<Vec<u8>, Errno> {
        self.memory().path(address).await
    }

    /// The open file behind a descriptor argument.
    pub fn file(&self, arg: u64) -> Result<Rc<OpenFile>, Errno> {
        let file = self.process.files().get(fd(arg))?;
        self.uses_file(&file);
        Ok(file)
    }

    /// Where a path starts that is relative to the directory `dirfd`.
    pub fn start(&self, dirfd: u64, path: &[u8]) -> Result<Rc<Vnode>, Errno> {
        if path.starts_with(b"/") {
            return Ok(self.process.root());
        }
        if fd(dirfd) == nr::AT_FDCWD {
            return Ok(self.process.cwd());
        }
        let vnode = self.file(dirfd)?.vnode.clone().ok_or(Errno::ENOTDIR)?;
        if vnode.is_directory() {
            Ok(vnode)
        } else {
            Err(Errno::ENOTDIR)
        }
    }

    /// A path argument, which may be empty with AT_EMPTY_PATH among `flags`.
    pub async fn path_at(&self, address: u64, flags: u64) -> Result<Vec<u8>, Errno> {
        // Linux takes a null pointer for the empty path there.
        if flags & u64::from(nr::AT_EMPTY_PATH) != 0 && address == 0 {
            Ok(Vec::new())
        } else {
            self.path(address).await
        }
    }

    /// What `dirfd` and a path argument name, with AT_EMPTY_PATH and AT_SYMLINK_NOFOLLOW
    /// among `flags`.
    pub async fn node_at(&self, dirfd: u64, address: u64, flags: u64) -> Result<Node, Errno> {
        let path = self.path_at(address, flags).await?;
        self.node_of(dirfd, &path, flags).await
    }

    /// [`Caller::node_at`] of a path that has been read.
    pub async fn node_of(&self, dirfd: u64, path: &[u8], flags: u64) -> Result<Node, Errno> {
        if path.is_empty() && flags & u64::from(nr::AT_EMPTY_PATH) != 0 {
            return if fd(dirfd) == nr::AT_FDCWD {
                Ok(Node::File(self.process.cwd()))
            } else {
                self.file(dirfd).map(Node::Open)
            };
        }
        let follow = if flags & u64::from(nr::AT_SYMLINK_NOFOLLOW) != 0 {
            Follow::No
        } else {
            Follow::Yes
        };
        let start = self.start(dirfd, path)?;
        self.walk(&start, path, follow).await?.existing()
    }
}
