//! RLIMIT_FSIZE: how long a process may make a file.

use crate::state::Caller;
use crate::vnode::Vnode;
use abi::Errno;
use linux_raw_sys::general as linux;

impl Caller {
    /// How many of `len` bytes may be written from `position` on, or with `append` at the end.
    /// `EFBIG` and SIGXFSZ when there is room for none.
    pub async fn room_in_file(
        &self,
        vnode: &Vnode,
        position: u64,
        append: bool,
        len: u64,
    ) -> Result<u64, Errno> {
        let most = self.process.file_size.get();
        if most == u64::MAX || len == 0 || vnode.mount.is_proc() {
            return Ok(len);
        }
        let start = match append {
            true => self.size_of(vnode).await?,
            false => position,
        };
        match most.saturating_sub(start) {
            0 => Err(self.too_long()),
            room => Ok(len.min(room)),
        }
    }

    /// `EFBIG` and SIGXFSZ when a file would grow beyond the limit to be `size` bytes long.
    pub async fn check_file_size(&self, vnode: &Vnode, size: u64) -> Result<(), Errno> {
        if size > self.process.file_size.get() && size > self.size_of(vnode).await? {
            return Err(self.too_long());
        }
        Ok(())
    }

    async fn size_of(&self, vnode: &Vnode) -> Result<u64, Errno> {
        match vnode.exact_size() {
            Some(size) => Ok(size),
            None => Ok(self.attributes(vnode).await?.size),
        }
    }

    fn too_long(&self) -> Errno {
        self.context().raise(linux::SIGXFSZ);
        Errno::EFBIG
    }
}
