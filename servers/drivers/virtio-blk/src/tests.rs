use crate::disk::{DMA_PAGES, Disk, Operation};
use crate::serve::{Driver, Grants};
use abi::grant::{GrantTo, ToRead, ToWrite};
use abi::message::request::Ask;
use abi::message::{answer_result, reply_result};
use abi::proto::block::{self, DiskInfo, Flush, Info, MAX_READ, MAX_TRANSFER, Read, Write};
use abi::proto::device::{Controlled, Moved};
use abi::proto::disk as file;
use abi::role::Role;
use abi::{Class, Endpoint, Errno, Message, Request};
use linux_raw_sys::ioctl;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;
use virtio::fake::FakeDevice;
use virtio::{Features, dma};

const SECTORS: u64 = 1000;
const CALLER: Endpoint = Endpoint::service(Role::FileSystem, 9, 0);

/// A disk whose sector `n` is full of `n`'s low byte; writing sector 666 fails.
fn device(_: u16, readable: &[u8], writable: &mut [u8]) -> Option<usize> {
    let kind = u32::from_le_bytes(readable[..4].try_into().unwrap());
    let sector = u64::from_le_bytes(readable[8..16].try_into().unwrap());
    let (status, data) = writable.split_last_mut().unwrap();
    *status = match kind {
        0 => {
            for (i, piece) in data.chunks_mut(512).enumerate() {
                piece.fill((sector as usize + i) as u8);
            }
            0
        }
        1 if sector == 666 => 1,
        1 => {
            assert!(readable[16..].iter().all(|&byte| byte == 0x5a));
            0
        }
        4 => 0,
        _ => 2,
    };
    Some(data.len() + 1)
}

struct Memory(Vec<u8>);

impl Grants for Memory {
    fn fetch(
        &mut self,
        who: Endpoint,
        _: ToRead,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Errno> {
        assert!([CALLER, Endpoint::VFS].contains(&who));
        let data = self.0.get(offset as usize..).ok_or(Errno::EPERM)?;
        let data = data.get(..buffer.len()).ok_or(Errno::EPERM)?;
        buffer.copy_from_slice(data);
        Ok(())
    }
    fn store(&mut self, _: Endpoint, _: ToWrite, offset: u64, buffer: &[u8]) -> Result<(), Errno> {
        let room = self.0.get_mut(offset as usize..).ok_or(Errno::EPERM)?;
        let room = room.get_mut(..buffer.len()).ok_or(Errno::EPERM)?;
        room.copy_from_slice(buffer);
        Ok(())
    }
    fn wait(&mut self) {
        panic!("a synchronous device was waited for");
    }
}

fn handled(disk: &mut Disk<FakeDevice>, grants: &mut Memory, message: &Message) -> Message {
    let (driver, class) = (&mut Driver { disk, grants }, Class::Call);
    let handled = match abi::proto::base(message.kind) {
        block::BASE => block::serve(driver, CALLER, class, message),
        _ => file::serve(driver, Endpoint::VFS, Class::Post, message),
    };
    handled.answer.unwrap()
}

fn ask<R: Request>(
    disk: &mut Disk<FakeDevice>,
    memory: &mut Memory,
    request: R,
) -> Result<R::Reply, Errno> {
    reply_result(&handled(disk, memory, &request.encode()))
}

/// The answer to what VFS asks.
fn post<R: Request<How = Ask>>(
    disk: &mut Disk<FakeDevice>,
    memory: &mut Memory,
    request: R,
) -> Result<R::Reply, Errno> {
    answer_result::<R>(&handled(disk, memory, &request.ask(9)))
}

// One test: the DMA region is the process's.
#[test]
fn requests_against_a_device() {
    let memory = vec![[0; abi::PAGE_SIZE]; 4 * DMA_PAGES + 4];
    dma::init_identity(Box::leak(memory.into_boxed_slice()));
    let offered = Features::VERSION_1 | Features::BLK_FLUSH;
    // EVENT_IDX and INDIRECT are offered too, as QEMU does, and not taken.
    let mut fake = FakeDevice::new(offered, &SECTORS.to_le_bytes(), device);
    fake.features |= 3 << 28;
    let mut disk = Disk::new(fake).unwrap();
    assert_eq!(disk.device().accepted, offered.bits());
    let memory = &mut Memory(vec![0x5a; MAX_TRANSFER as usize]);
    let info = ask(&mut disk, memory, Info {});
    assert_eq!(
        info,
        Ok(DiskInfo {
            sectors: SECTORS,
            read_only: false
        })
    );

    let all = MAX_TRANSFER;
    assert_eq!(
        ask(
            &mut disk,
            memory,
            Write {
                sector: 1,
                len: all,
                grant: GrantTo::new(1)
            }
        ),
        Ok(())
    );
    assert_eq!(
        ask(
            &mut disk,
            memory,
            Read {
                sector: 7,
                len: 1024,
                grant: GrantTo::new(1)
            }
        ),
        Ok(())
    );
    assert_eq!((memory.0[511], memory.0[512], memory.0[1024]), (7, 8, 0x5a));
    assert_eq!(ask(&mut disk, memory, Flush {}), Ok(()));
    memory.0.fill(0x5a);
    let long = Write {
        sector: 0,
        len: all + 512,
        grant: GrantTo::new(1),
    };
    assert_eq!(ask(&mut disk, memory, long), Err(Errno::EINVAL));
    // What is longer than the driver's buffer comes in pieces.
    let large = &mut Memory(vec![0; 2 * all as usize + 1024]);
    let read = Read {
        sector: 3,
        len: 2 * all + 512,
        grant: GrantTo::new(1),
    };
    assert_eq!(ask(&mut disk, large, read), Ok(()));
    let sectors = large.0.chunks(512).enumerate();
    let expected = |i: usize| {
        if (i as u64 * 512) < read.len {
            (3 + i) as u8
        } else {
            0
        }
    };
    for (i, bytes) in sectors {
        assert!(bytes.iter().all(|&byte| byte == expected(i)), "sector {i}");
    }
    for _ in 0..100 {
        let write = Write {
            sector: 666,
            len: 512,
            grant: GrantTo::new(1),
        };
        assert_eq!(ask(&mut disk, memory, write), Err(Errno::EIO));
    }
    assert_eq!(disk.device().interrupts, 0, "nobody waits for an interrupt");

    let refused = Err(Errno::EINVAL);
    for (sector, len) in [
        (0, 0),
        (0, 100),
        (0, MAX_READ + 512),
        (SECTORS, 512),
        (SECTORS - 1, 1024),
        (u64::MAX, 512),
        (0, !511),
    ] {
        assert_eq!(
            ask(
                &mut disk,
                memory,
                Read {
                    sector,
                    len,
                    grant: GrantTo::new(1)
                }
            ),
            refused
        );
        assert_eq!(
            ask(
                &mut disk,
                memory,
                Write {
                    sector,
                    len,
                    grant: GrantTo::new(1)
                }
            ),
            refused
        );
    }

    // As a file: any byte may be the first, and what fits is moved.
    let read_at = |position, len| file::ReadAt {
        minor: 0,
        position,
        grant: GrantTo::new(1),
        len,
    };
    memory.0.fill(0xee);
    let first = post(&mut disk, memory, read_at(7 * 512 + 500, 600));
    assert_eq!(first, Ok(Moved { bytes: 600 }));
    assert_eq!((memory.0[11], memory.0[12]), (7, 8));
    assert_eq!((memory.0[523], memory.0[524], memory.0[599]), (8, 9, 9));
    assert_eq!(memory.0[600], 0xee);
    let size = SECTORS * 512;
    assert_eq!(
        post(&mut disk, memory, read_at(size - 10, 512)),
        Ok(Moved { bytes: 10 })
    );
    assert_eq!(
        post(&mut disk, memory, read_at(size, 1)),
        Ok(Moved { bytes: 0 })
    );
    assert_eq!(
        post(&mut disk, memory, read_at(u64::MAX, 1)),
        Ok(Moved { bytes: 0 })
    );
    // Two pieces, and memory for the first only.
    let long = read_at(1, all + 100);
    assert_eq!(post(&mut disk, memory, long), Ok(Moved { bytes: all - 1 }));
    let none = file::ReadAt { minor: 1, ..long };
    assert_eq!(post(&mut disk, memory, none), Err(Errno::ENXIO));
    let minor = 0;
    let asked = post(&mut disk, memory, file::Size { minor });
    assert_eq!(asked, Ok(file::Extent { bytes: size }));
    let control = |request: u32| file::Ioctl {
        minor,
        request: request.into(),
        grant: GrantTo::new(1),
    };
    let told = post(&mut disk, memory, control(ioctl::BLKGETSIZE64));
    assert_eq!(
        (told, &memory.0[..8]),
        (Ok(Controlled { value: 0 }), &size.to_le_bytes()[..])
    );
    let told = post(&mut disk, memory, control(ioctl::TCGETS));
    assert_eq!(told, Err(Errno::ENOTTY));
    memory.0.truncate(100);
    assert_eq!(
        ask(
            &mut disk,
            memory,
            Read {
                sector: 0,
                len: 512,
                grant: GrantTo::new(1)
            }
        ),
        Err(Errno::EPERM)
    );

    // A device that takes its time.
    disk.device().synchronous = false;
    let mut waits = 0;
    let result = disk.run(Operation::Read, 3, 512, |device| {
        waits += 1;
        if waits == 3 {
            device.work();
        }
    });
    assert_eq!((result, waits), (Ok(()), 3));
    assert_eq!(disk.data()[..2], [3, 3]);
    assert_eq!(disk.device().interrupts, 1);

    let fake = FakeDevice::new(
        Features::VERSION_1 | Features::BLK_RO,
        &[1, 0, 0, 0, 0, 0, 0, 0],
        device,
    );
    let mut disk = Disk::new(fake).unwrap();
    assert_eq!(
        ask(&mut disk, memory, Info {}),
        Ok(DiskInfo {
            sectors: 1,
            read_only: true
        })
    );
    let write = Write {
        sector: 0,
        len: 512,
        grant: GrantTo::new(1),
    };
    assert_eq!(ask(&mut disk, memory, write), Err(Errno::EROFS));
    // Without the feature a flush has nothing to do.
    assert_eq!(ask(&mut disk, memory, Flush {}), Ok(()));

    let legacy = FakeDevice::new(Features::BLK_FLUSH, &[0; 8], device);
    assert_eq!(Disk::new(legacy).err(), Some(Errno::ENODEV));
}
