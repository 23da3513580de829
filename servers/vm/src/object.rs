//! Objects behind addresses: what names memory that several address spaces reach by different
//! addresses. Regions say it; page tables, which hold what happens to be present, do not.

use crate::server::Server;
use abi::proto::vm::{Object, ObjectAt, PRIVATE_OBJECT, Prot};
use abi::{Endpoint, Errno};

impl Server {
    /// [`ObjectAt`].
    pub(crate) fn object_at(&mut self, source: Endpoint, r: ObjectAt) -> Result<Object, Errno> {
        if source != Endpoint::PM {
            return Err(Errno::EPERM);
        }
        let by_address = self.pool.lab.sabotage & abi::sabotage::FUTEX_BY_ADDRESS != 0;
        let (space, _) = self.space(r.who)?;
        let region = space.regions.at(r.address);
        let region = region.filter(|r| !r.prot.is_empty()).ok_or(Errno::EFAULT)?;
        let written = region.prot.contains(Prot::WRITE);
        match region.file() {
            _ if by_address => Ok(Object {
                dev: PRIVATE_OBJECT,
                ino: 0,
                offset: r.address,
            }),
            // A private page that cannot be written is still the file's.
            Some(file) if !region.private() || !written => Ok(Object {
                dev: file.dev,
                ino: file.ino,
                offset: region.offset_of(r.address),
            }),
            None if !written => Err(Errno::EFAULT),
            _ => Ok(Object {
                dev: PRIVATE_OBJECT,
                ino: 0,
                offset: r.address,
            }),
        }
    }
}
