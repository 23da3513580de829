//! The memory devices' image.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::boot::{RunSpec, names};
use abi::kernel::KernelNotify;
use abi::proto::{device, rs, vfs};
use abi::{Class, Endpoint, Errno, Message, Request};
use alloc::vec;
use mem::device::{Grants, answer};
use mem::random::Random;
use rt::mishap::Mishap;
use rt::{copy, gate, ipc, kernel, outbox};

rt::entry!(main);

/// The requests that [`Mishap`] can name.
const REQUESTS: [(&str, u64); 3] = [
    ("read", device::Read::KIND),
    ("write", device::Write::KIND),
    ("ioctl", device::Ioctl::KIND),
];

/// Grants of one process.
struct Of(Endpoint);

impl Grants for Of {
    fn fetch(&mut self, grant: i32, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        copy::safecopy_from(self.0, grant, offset, buffer)
    }

    fn store(&mut self, grant: i32, offset: u64, buffer: &[u8]) -> Result<(), Errno> {
        copy::safecopy_to(self.0, grant, offset, buffer)
    }

    fn zero(&mut self, grant: i32, offset: u64, len: u64) -> Result<(), Errno> {
        copy::safe_memset(self.0, grant, offset, len, 0)
    }
}

/// The run's seed.
fn seed() -> Result<[u64; 4], Errno> {
    let (entry, info) = kernel::module_find(names::RUN)?;
    let mut bytes = vec![0; info.len as usize];
    let len = kernel::module_read(entry, 0, &mut bytes)?;
    bytes.truncate(len);
    RunSpec::parse(&bytes).map(|run| run.header.seed)
}

fn main() -> ! {
    let seed = seed();
    let mishap = Mishap::planned(&REQUESTS);
    let status = seed
        .and(mishap)
        .map_or_else(|errno| -i64::from(errno.0), |_| 0);
    outbox::post(Endpoint::RS, rs::Started { status });
    let mut mishap = mishap.unwrap_or_default();
    let mut random = Random::new(seed.unwrap_or_default());
    // VFS draws from the same seed; this makes the two streams different ones.
    random.mix(b"mem");
    loop {
        let Ok(received) = ipc::receive() else {
            continue;
        };
        if !gate::admits(&received) {
            continue;
        }
        let source = received.source;
        match received.class {
            Class::Post => {
                let kind = received.message.kind;
                let struck = mishap.as_mut().and_then(|m| m.strikes(kind));
                let answered = answer(&received.message, &mut random, &mut Of(source));
                if let Some((txn, result)) = answered {
                    let result = struck.map_or(result, Err);
                    let status = result.map(|_| ());
                    let a = result.unwrap_or(0);
                    outbox::post(
                        source,
                        vfs::Done {
                            txn,
                            status,
                            a,
                            b: 0,
                            c: 0,
                            d: 0,
                            e: 0,
                        },
                    );
                }
            }
            Class::Call => {
                let _ = ipc::reply_raw(source, Message::error(Errno::ENOSYS));
            }
            Class::Kernel if received.message.words[0] & KernelNotify::OUTBOX.bits() != 0 => {
                outbox::flush();
            }
            _ => {}
        }
    }
}
