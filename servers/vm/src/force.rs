//! Looking at a page, and changing it, in spite of its protection: what debuggers need
//! ([`abi::proto::vm::Force`]). Breakpoints stand in text that nobody may write.

use crate::fault::{Access, Step};
use crate::pool::Pool;
use crate::server::Server;
use crate::space::Space;
use crate::table::{self, Cursor};
use abi::kernel::user_range;
use abi::proto::vm::{Force, Forced};
use abi::{Endpoint, Errno, PAGE};

/// Bytes of a word.
const WORD: u64 = 8;

impl Server {
    /// See [`Force`].
    pub(crate) fn force(&mut self, source: Endpoint, r: Force) -> Result<Forced, Errno> {
        if source != Endpoint::PM {
            return Err(Errno::EPERM);
        }
        if !(1..=WORD).contains(&r.len) || r.address % PAGE + r.len > PAGE {
            return Err(Errno::EINVAL);
        }
        user_range(r.address, r.len)?;
        let mut word = r.value.to_le_bytes();
        let (space, pool) = self.space(r.who)?;
        space.force(pool, r.address, &mut word[..r.len as usize], r.write)?;
        let value = u64::from_le_bytes(word);
        Ok(Forced { value })
    }
}

impl Space {
    /// Reads or writes bytes of one page.
    fn force(
        &mut self,
        pool: &mut Pool,
        address: u64,
        bytes: &mut [u8],
        write: bool,
    ) -> Result<(), Errno> {
        let page = abi::page_down(address);
        let region = *self.regions.at(page).ok_or(Errno::EFAULT)?;
        match self.bring(pool, region, page, Access::Read) {
            Ok(Step::Ready) => {}
            Ok(Step::Fail(_)) | Err(_) => return Err(Errno::EFAULT),
            // The page has to come from elsewhere.
            Ok(_) => return Err(Errno::EAGAIN),
        }
        let entry = table::get(pool.frames, self.top, page);
        if entry & table::FOREIGN != 0 {
            return Err(Errno::EFAULT);
        }
        let mut frame = table::frame(entry);
        let offset = (address - page) as usize;
        if !write {
            pool.window().read(frame, offset, bytes);
            return Ok(());
        }
        if !region.private() {
            return Err(Errno::EFAULT);
        }
        if pool.frames.refs(frame) > 1 || pool.frames.tag(frame) != 0 {
            let copy = pool.take_copy(frame).map_err(|_| Errno::ENOMEM)?;
            let own = table::entry(copy, region.prot, true);
            if Cursor::new(self.top).set(pool.frames, page, own).is_err() {
                pool.frames.release(copy);
                return Err(Errno::ENOMEM);
            }
            pool.frames.release(frame);
            frame = copy;
        }
        pool.window().write(frame, offset, bytes);
        Ok(())
    }
}
