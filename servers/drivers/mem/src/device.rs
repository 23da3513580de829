//! What each device does with a request of [`abi::proto::device`].

use crate::random::Random;
use abi::grant::{ToRead, ToWrite};
use abi::message::Server;
use abi::proto::device::numbers::{
    FULL_MINOR, NULL_MINOR, RANDOM_MINOR, URANDOM_MINOR, ZERO_MINOR,
};
use abi::proto::device::{self, Events, Moved, Opened};
use abi::{Errno, PAGE_SIZE};
use linux_raw_sys::general as linux;

/// The caller's grants.
pub trait Grants {
    /// Copies from a grant.
    fn fetch(&mut self, grant: ToRead, offset: u64, buffer: &mut [u8]) -> Result<(), Errno>;
    /// Copies to a grant.
    fn store(&mut self, grant: ToWrite, offset: u64, buffer: &[u8]) -> Result<(), Errno>;
    /// Fills a part of a grant with zeros.
    fn zero(&mut self, grant: ToWrite, offset: u64, len: u64) -> Result<(), Errno>;
}

/// Bytes that are cleared in one kernel call: a long read must not hold up the kernel.
const ZERO_STEP: u64 = 1 << 20;
/// The most random bytes of one read, as on Linux.
const RANDOM_MAX: u64 = (32 << 20) - 1;
/// Bytes of a write to random that are mixed in.
const MIX_MAX: u64 = 512;

/// The devices, with the grants of who asks.
pub struct Devices<'a, G> {
    /// The generator behind `/dev/random`.
    pub random: &'a mut Random,
    /// The asker's grants.
    pub grants: G,
}

impl<G: Grants> Server for Devices<'_, G> {}

abi::serve! { [G: Grants] Devices<'_, G>;
    device::Read => |on, _, r| {
        read(r.minor, r.grant, r.len, on.random, &mut on.grants).map(|bytes| Moved { bytes })
    };
    device::Write => |on, _, r| {
        write(r.minor, r.grant, r.len, on.random, &mut on.grants).map(|bytes| Moved { bytes })
    };
    device::Ioctl => |_on, _, _| Err(Errno::ENOTTY);
    device::Poll => |_on, _, r| {
        let all = linux::POLLIN | linux::POLLOUT | linux::POLLRDNORM | linux::POLLWRNORM;
        let events = r.events & all;
        Ok(Events { events })
    };
    device::Open => |_on, _, r| known(r.minor).map(|()| Opened { minor: r.minor });
    device::Close => |_on, _, _| ();
    // Nothing waits, so there is nothing to cancel.
    device::Cancel => |_on, _, _| ();
}

fn known(minor: u32) -> Result<(), Errno> {
    match minor {
        NULL_MINOR | ZERO_MINOR | FULL_MINOR | RANDOM_MINOR | URANDOM_MINOR => Ok(()),
        _ => Err(Errno::ENXIO),
    }
}

fn read(
    minor: u32,
    grant: ToWrite,
    len: u64,
    random: &mut Random,
    grants: &mut impl Grants,
) -> Result<u64, Errno> {
    match minor {
        NULL_MINOR => Ok(0),
        ZERO_MINOR | FULL_MINOR => {
            let mut done = 0;
            while done < len {
                let step = (len - done).min(ZERO_STEP);
                grants.zero(grant, done, step)?;
                done += step;
            }
            Ok(len)
        }
        RANDOM_MINOR | URANDOM_MINOR => {
            let len = len.min(RANDOM_MAX);
            let mut page = [0; PAGE_SIZE];
            let mut done = 0;
            while done < len {
                let piece = &mut page[..(len - done).min(PAGE_SIZE as u64) as usize];
                random.fill(piece);
                grants.store(grant, done, piece)?;
                done += piece.len() as u64;
            }
            Ok(len)
        }
        _ => Err(Errno::ENXIO),
    }
}

fn write(
    minor: u32,
    grant: ToRead,
    len: u64,
    random: &mut Random,
    grants: &mut impl Grants,
) -> Result<u64, Errno> {
    match minor {
        NULL_MINOR | ZERO_MINOR => Ok(len),
        FULL_MINOR => Err(Errno::ENOSPC),
        RANDOM_MINOR | URANDOM_MINOR => {
            let mut bytes = [0; MIX_MAX as usize];
            let bytes = &mut bytes[..len.min(MIX_MAX) as usize];
            if !bytes.is_empty() {
                grants.fetch(grant, 0, bytes)?;
                random.mix(bytes);
            }
            Ok(len)
        }
        _ => Err(Errno::ENXIO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::grant::GrantTo;
    use abi::message::answer_result;
    use abi::proto::device::{Read, Write};
    use abi::{Class, Endpoint, Request};
    use std::vec;
    use std::vec::Vec;

    struct Memory(Vec<u8>);

    impl Memory {
        fn range(&mut self, offset: u64, len: usize) -> Result<&mut [u8], Errno> {
            let offset = offset as usize;
            self.0.get_mut(offset..offset + len).ok_or(Errno::EFAULT)
        }
    }

    impl Grants for &mut Memory {
        fn fetch(&mut self, _: ToRead, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
            buffer.copy_from_slice(self.range(offset, buffer.len())?);
            Ok(())
        }
        fn store(&mut self, _: ToWrite, offset: u64, buffer: &[u8]) -> Result<(), Errno> {
            self.range(offset, buffer.len())?.copy_from_slice(buffer);
            Ok(())
        }
        fn zero(&mut self, _: ToWrite, offset: u64, len: u64) -> Result<(), Errno> {
            self.range(offset, len as usize)?.fill(0);
            Ok(())
        }
    }

    fn ask(memory: &mut Memory, write: bool, minor: u32, len: u64) -> Result<u64, Errno> {
        let who = Endpoint::new(20, 0);
        let (nonblock, job) = (false, (2, 2));
        let read = Read {
            minor,
            grant: GrantTo::new(1),
            len,
            nonblock,
            who,
            job,
        };
        let write_request = Write {
            minor,
            grant: GrantTo::new(1),
            len,
            nonblock,
            who,
            job,
        };
        let mut devices = Devices {
            random: &mut Random::new([3; 4]),
            grants: memory,
        };
        let mut serve = |message| device::serve(&mut devices, Endpoint::VFS, Class::Post, &message);
        if write {
            let answer = serve(write_request.ask(5)).answer.unwrap();
            answer_result::<Write>(&answer).map(|moved| moved.bytes)
        } else {
            let answer = serve(read.ask(5)).answer.unwrap();
            answer_result::<Read>(&answer).map(|moved| moved.bytes)
        }
    }

    #[test]
    fn each_device_does_what_its_name_says() {
        let mut memory = Memory(vec![7; 10_000]);
        assert_eq!(ask(&mut memory, false, NULL_MINOR, 10), Ok(0));
        assert_eq!(ask(&mut memory, true, NULL_MINOR, 1 << 40), Ok(1 << 40));
        assert_eq!(ask(&mut memory, true, FULL_MINOR, 1), Err(Errno::ENOSPC));
        assert_eq!(ask(&mut memory, false, ZERO_MINOR, 9_999), Ok(9_999));
        assert_eq!((memory.0[9_998], memory.0[9_999]), (0, 7));
        assert_eq!(ask(&mut memory, false, URANDOM_MINOR, 10_000), Ok(10_000));
        assert!(
            memory
                .0
                .chunks(100)
                .all(|piece| piece.iter().any(|&b| b != piece[0]))
        );
        assert_eq!(ask(&mut memory, true, RANDOM_MINOR, 10_000), Ok(10_000));
        assert_eq!(ask(&mut memory, false, 1, 1), Err(Errno::ENXIO));
    }

    #[test]
    fn a_fault_is_the_answer() {
        let mut memory = Memory(vec![7; 100]);
        for minor in [ZERO_MINOR, URANDOM_MINOR] {
            assert_eq!(ask(&mut memory, false, minor, 101), Err(Errno::EFAULT));
        }
    }
}
