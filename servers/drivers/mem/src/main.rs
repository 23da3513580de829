//! The memory devices' image.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::boot::{RunSpec, names};
use abi::grant::{ToRead, ToWrite};
use abi::message::Handled;
use abi::proto::device;
use abi::{Endpoint, Errno, Request};
use alloc::vec;
use mem::device::{Devices, Grants};
use mem::random::Random;
use rt::ipc::Received;
use rt::mishap::Mishap;
use rt::serve::Service;
use rt::{copy, kernel};

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
    fn fetch(&mut self, grant: ToRead, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        copy::safecopy_from(self.0, grant, offset, buffer)
    }

    fn store(&mut self, grant: ToWrite, offset: u64, buffer: &[u8]) -> Result<(), Errno> {
        copy::safecopy_to(self.0, grant, offset, buffer)
    }

    fn zero(&mut self, grant: ToWrite, offset: u64, len: u64) -> Result<(), Errno> {
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

/// The devices as a service.
struct Memory {
    random: Random,
    mishap: Option<Mishap>,
}

impl Service for Memory {
    fn serve(&mut self, received: &Received) -> Handled {
        let Received {
            source,
            class,
            ref message,
        } = *received;
        let mut devices = Devices {
            random: &mut self.random,
            grants: Of(source),
        };
        Mishap::or_serve(&mut self.mishap, received, || {
            device::serve(&mut devices, source, class, message)
        })
    }
}

fn start() -> Result<Memory, Errno> {
    let mut random = Random::new(seed()?);
    // VFS draws from the same seed; this makes the two streams different ones.
    random.mix(b"mem");
    let mishap = Mishap::planned(&REQUESTS)?;
    Ok(Memory { random, mishap })
}

fn main() -> ! {
    rt::serve::start(start())
}
