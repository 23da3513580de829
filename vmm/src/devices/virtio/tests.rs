//! A driver that plays by the rules, and one that does not.

use std::io::Write;
use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER};

use super::*;
use crate::control::{Reason, Stop};
use crate::devices::block::Block;
use crate::devices::console::{Console, RECEIVE, TRANSMIT};
use crate::hostlink::Link;
use crate::hostlink::input::Input;
use crate::hostlink::output::Sink;
use crate::memory::GuestRam;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const BUFFERS: u64 = 0x1_0000;

/// Memory, a device and one of its queues, seen from the driver's side.
struct Driver<D> {
    ram: GuestRam,
    transport: Transport<D>,
    event: EventFd,
    /// Guest-physical address of the selected queue's rings.
    rings: u64,
    avail: u16,
}

impl<D: Device> Driver<D> {
    fn new(device: D) -> Driver<D> {
        let event = EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap();
        let transport = Transport::new(device, event.try_clone().unwrap()).unwrap();
        let ram = GuestRam::new(crate::memory::MINIMUM).unwrap();
        Driver {
            ram,
            transport,
            event,
            rings: 0,
            avail: 0,
        }
    }

    fn get(&mut self, register: u32) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register.into(), &mut data);
        u32::from_le_bytes(data)
    }

    fn set(&mut self, register: u32, value: u32) {
        self.transport
            .write(register.into(), &value.to_le_bytes(), &self.ram.map)
            .unwrap();
    }

    fn negotiate(&mut self) {
        self.set(reg::VIRTIO_MMIO_STATUS, 0);
        let status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
        self.set(reg::VIRTIO_MMIO_STATUS, status);
        self.set(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        self.set(
            reg::VIRTIO_MMIO_DRIVER_FEATURES,
            1 << (VIRTIO_F_VERSION_1 - 32),
        );
        let status = status | VIRTIO_CONFIG_S_FEATURES_OK;
        self.set(reg::VIRTIO_MMIO_STATUS, status);
        assert_eq!(self.get(reg::VIRTIO_MMIO_STATUS), status);
    }

    fn queue(&mut self, index: u32, size: u32) {
        self.rings = 0x4000 * (u64::from(index) + 1);
        self.avail = 0;
        self.set(reg::VIRTIO_MMIO_QUEUE_SEL, index);
        self.set(reg::VIRTIO_MMIO_QUEUE_NUM, size);
        for (low, high, at) in [
            (
                reg::VIRTIO_MMIO_QUEUE_DESC_LOW,
                reg::VIRTIO_MMIO_QUEUE_DESC_HIGH,
                self.rings,
            ),
            (
                reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW,
                reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
                self.rings + 0x1000,
            ),
            (
                reg::VIRTIO_MMIO_QUEUE_USED_LOW,
                reg::VIRTIO_MMIO_QUEUE_USED_HIGH,
                self.rings + 0x2000,
            ),
        ] {
            self.set(low, at as u32);
            self.set(high, 0);
        }
        self.set(reg::VIRTIO_MMIO_QUEUE_READY, 1);
        let status = self.get(reg::VIRTIO_MMIO_STATUS);
        self.set(reg::VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_DRIVER_OK);
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.ram.map.write_obj(value, GuestAddress(at)).unwrap();
    }

    fn descriptor(&self, at: u64, address: u64, len: u32, flags: u16, next: u16) {
        self.put(at, address);
        self.put(at + 8, len);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    /// Writes a chain from descriptor 0 on and makes it available.
    fn offer(&mut self, chain: &[(u64, u32, u16)]) {
        for (i, &(address, len, flags)) in chain.iter().enumerate() {
            let next = if i + 1 < chain.len() { NEXT } else { 0 };
            let at = self.rings + 16 * i as u64;
            self.descriptor(at, address, len, flags | next, i as u16 + 1);
        }
        self.publish(0);
    }

    fn publish(&mut self, head: u16) {
        let slot = self.rings + 0x1000 + 4 + 2 * u64::from(self.avail % 256);
        self.put(slot, head);
        self.avail = self.avail.wrapping_add(1);
        self.put(self.rings + 0x1002, self.avail);
    }

    fn ring(&mut self, queue: u32) -> Result<(), RingError> {
        let register = u64::from(reg::VIRTIO_MMIO_QUEUE_NOTIFY);
        self.transport
            .write(register, &queue.to_le_bytes(), &self.ram.map)
    }

    fn used(&self) -> u16 {
        self.ram
            .map
            .read_obj(GuestAddress(self.rings + 0x2002))
            .unwrap()
    }

    fn needs_reset(&mut self) -> bool {
        self.get(reg::VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET != 0
    }
}

fn disk(sectors: usize) -> Driver<Block> {
    let mut file = tempfile::tempfile().unwrap();
    for sector in 0..sectors {
        file.write_all(&[sector as u8; 512]).unwrap();
    }
    let mut driver = Driver::new(Block::new(file, false, Stop::new().unwrap()).unwrap());
    driver.negotiate();
    driver.queue(0, 256);
    driver
}

/// One request with its data in one buffer; returns the status.
fn request(driver: &mut Driver<Block>, kind: u32, sector: u64, len: u32) -> u32 {
    let into_guest = kind == VIRTIO_BLK_T_IN || kind == VIRTIO_BLK_T_GET_ID;
    driver.put(BUFFERS, kind);
    driver.put(BUFFERS + 4, 0u32);
    driver.put(BUFFERS + 8, sector);
    driver.put(BUFFERS + 16, 0xeeu8);
    let mut chain = vec![(BUFFERS, 16, 0)];
    if len > 0 {
        chain.push((BUFFERS + 0x1000, len, if into_guest { WRITE } else { 0 }));
    }
    chain.push((BUFFERS + 16, 1, WRITE));
    driver.offer(&chain);
    driver.ring(0).unwrap();
    let status: u8 = driver.ram.map.read_obj(GuestAddress(BUFFERS + 16)).unwrap();
    status.into()
}

#[test]
fn a_disk_reads_writes_and_knows_itself() {
    let mut driver = disk(8);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_MAGIC_VALUE), MAGIC);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_DEVICE_ID), 2);
    assert_eq!(driver.get(CONFIG as u32), 8);
    assert_eq!(
        request(&mut driver, VIRTIO_BLK_T_IN, 3, 1024),
        VIRTIO_BLK_S_OK
    );
    let mut data = [0; 1024];
    driver
        .ram
        .map
        .read_slice(&mut data, GuestAddress(BUFFERS + 0x1000))
        .unwrap();
    assert!(data[..512] == [3; 512] && data[512..] == [4; 512]);
    driver
        .ram
        .map
        .write_slice(&[0x5a; 512], GuestAddress(BUFFERS + 0x1000))
        .unwrap();
    assert_eq!(
        request(&mut driver, VIRTIO_BLK_T_OUT, 7, 512),
        VIRTIO_BLK_S_OK
    );
    assert_eq!(
        request(&mut driver, VIRTIO_BLK_T_FLUSH, 0, 0),
        VIRTIO_BLK_S_OK
    );
    assert_eq!(
        request(&mut driver, VIRTIO_BLK_T_IN, 7, 512),
        VIRTIO_BLK_S_OK
    );
    let byte: u8 = driver
        .ram
        .map
        .read_obj(GuestAddress(BUFFERS + 0x1000))
        .unwrap();
    assert_eq!(byte, 0x5a);
    assert_eq!(
        request(&mut driver, VIRTIO_BLK_T_GET_ID, 0, 20),
        VIRTIO_BLK_S_OK
    );
    assert_eq!(driver.used(), 5);
    assert_eq!(driver.event.read().unwrap(), 5);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    driver.set(reg::VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

#[test]
fn bad_requests_are_errors_and_nothing_more() {
    let mut driver = disk(8);
    for (kind, sector, len) in [
        (VIRTIO_BLK_T_IN, 8, 512),
        (VIRTIO_BLK_T_IN, 7, 1024),
        (VIRTIO_BLK_T_IN, u64::MAX, 512),
        (VIRTIO_BLK_T_OUT, u64::MAX / 512, 512),
        (VIRTIO_BLK_T_IN, 0, 100),
    ] {
        assert_eq!(request(&mut driver, kind, sector, len), VIRTIO_BLK_S_IOERR);
    }
    assert_eq!(request(&mut driver, 77, 0, 512), VIRTIO_BLK_S_UNSUPP);
    assert!(!driver.needs_reset());
}

#[test]
fn a_request_may_be_cut_anywhere() {
    let mut driver = disk(8);
    driver.put(BUFFERS, VIRTIO_BLK_T_IN);
    driver.put(BUFFERS + 8, 2u64);
    // Header in two pieces, data in two, the status at the end of the second.
    driver.offer(&[
        (BUFFERS, 5, 0),
        (BUFFERS + 5, 11, 0),
        (BUFFERS + 0x1000, 100, WRITE),
        (BUFFERS + 0x2000, 413, WRITE),
    ]);
    driver.ring(0).unwrap();
    let status: u8 = driver
        .ram
        .map
        .read_obj(GuestAddress(BUFFERS + 0x2000 + 412))
        .unwrap();
    let byte: u8 = driver
        .ram
        .map
        .read_obj(GuestAddress(BUFFERS + 0x2000 + 411))
        .unwrap();
    assert_eq!((status, byte), (0, 2));
}

#[test]
fn hostile_chains_stop_the_device_until_reset() {
    type Attack<'a> = &'a dyn Fn(&mut Driver<Block>);
    let hostile: [Attack<'_>; 9] = [
        // A loop.
        &|d| {
            d.descriptor(d.rings, BUFFERS, 16, NEXT, 0);
            d.publish(0);
        },
        // A head outside the table.
        &|d| d.publish(256),
        // A buffer outside RAM.
        &|d| d.offer(&[(u64::MAX - 8, 16, 0), (BUFFERS, 1, WRITE)]),
        &|d| d.offer(&[(1 << 40, 16, 0), (BUFFERS, 1, WRITE)]),
        // No status byte; no header; an empty chain.
        &|d| d.offer(&[(BUFFERS, 16, 0)]),
        &|d| d.offer(&[(BUFFERS, 1, WRITE)]),
        &|d| d.offer(&[(BUFFERS, 0, 0)]),
        // The order reversed.
        &|d| d.offer(&[(BUFFERS, 1, WRITE), (BUFFERS, 16, 0)]),
        // More available than the queue holds.
        &|d| d.put(d.rings + 0x1002, 5000u16),
    ];
    for (i, attack) in hostile.iter().enumerate() {
        let mut driver = disk(8);
        attack(&mut driver);
        assert!(driver.ring(0).is_err(), "attack {i}");
        assert!(driver.needs_reset(), "attack {i}");
        assert_eq!(driver.used(), 0, "attack {i}");
        // Deaf until reset, and well again after.
        driver.ring(0).unwrap();
        driver.negotiate();
        driver.put(0x4000 + 0x2002, 0u16);
        driver.queue(0, 256);
        assert_eq!(
            request(&mut driver, VIRTIO_BLK_T_IN, 0, 512),
            VIRTIO_BLK_S_OK,
            "after {i}"
        );
    }
}

#[test]
fn indirect_tables_that_nobody_negotiated_do_no_harm() {
    let mut driver = disk(8);
    // An indirect table that refers to itself.
    driver.descriptor(BUFFERS, BUFFERS, 16, INDIRECT, 0);
    driver.descriptor(driver.rings, BUFFERS, 16, INDIRECT, 0);
    driver.publish(0);
    assert!(driver.ring(0).is_err());
    // One as large as can be, of readable bytes without end.
    let mut driver = disk(8);
    for i in 0..4096u16 {
        driver.descriptor(BUFFERS + 16 * u64::from(i), 0, 16 << 20, NEXT, i + 1);
    }
    driver.descriptor(driver.rings, BUFFERS, 4096 * 16, INDIRECT, 0);
    driver.publish(0);
    assert!(driver.ring(0).is_err());
}

#[test]
fn nonsense_in_registers_is_ignored() {
    let mut driver = disk(8);
    for offset in 0..0x200u64 {
        for value in [0u64, 1, 7, 0xffff_ffff_ffff_ffff] {
            for len in [1, 2, 4, 8] {
                let _ =
                    driver
                        .transport
                        .write(offset, &value.to_le_bytes()[..len], &driver.ram.map);
                let mut data = [0; 8];
                driver.transport.read(offset, &mut data[..len]);
            }
        }
    }
    driver.transport.read(u64::MAX, &mut [0; 8]);
    // A queue whose rings are not in RAM never becomes ready.
    driver.negotiate();
    driver.set(reg::VIRTIO_MMIO_QUEUE_SEL, 0);
    driver.set(reg::VIRTIO_MMIO_QUEUE_DESC_HIGH, 7);
    driver.set(reg::VIRTIO_MMIO_QUEUE_READY, 1);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_QUEUE_READY), 0);
    // Features that were not offered are not accepted.
    driver.set(reg::VIRTIO_MMIO_STATUS, 0);
    driver.set(reg::VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
    driver.set(reg::VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FEATURES_OK);
    assert_eq!(
        driver.get(reg::VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK,
        0
    );
}

/// Chance, the same every time.
fn dice(seed: u64) -> impl FnMut() -> u64 {
    let mut index = 0;
    move || {
        index += 1;
        abi::trace::random(seed, index)
    }
}

/// Descriptors, rings and what they lead to of anything, for the queue that is selected.
fn scribble<D: Device>(driver: &Driver<D>, roll: &mut impl FnMut() -> u64) {
    let odd = if roll().is_multiple_of(2) { 60 } else { 4 };
    // Requests of three descriptors, some of whose fields are anything.
    for n in 0..30u64 {
        let chance = roll();
        let address = match chance % odd {
            0 => crate::memory::MINIMUM - (chance >> 8) % 64,
            1 => chance,
            2 => driver.rings + (chance >> 8) % 0x3000,
            _ => BUFFERS + ((chance >> 8) % 0x400) * 16,
        };
        let chance = roll();
        let len = match chance % odd {
            0 => (chance >> 8) as u32,
            1 => (chance >> 8) as u32 % 2000,
            _ => [16, 512, 1][n as usize % 3],
        };
        let chance = roll();
        let flags = match chance % odd {
            0 => (chance >> 8) as u16 & (NEXT | WRITE | INDIRECT),
            _ => [NEXT, NEXT | (chance >> 8) as u16 & WRITE, WRITE][n as usize % 3],
        };
        let next = if roll().is_multiple_of(odd) {
            roll() % 36
        } else {
            n + 1
        };
        driver.descriptor(driver.rings + 16 * n, address, len, flags, next as u16);
    }
    for n in 0..256 {
        let head = match roll() % odd {
            0 => roll(),
            1 => roll() % 36,
            _ => roll() % 10 * 3,
        };
        driver.put(driver.rings + 0x1004 + 2 * n, head as u16);
    }
    // Requests' headers, and packets.
    for n in 0..0x4000 / 8 {
        driver.put(
            BUFFERS + 8 * n,
            roll() & 0x0f0f_0000_0f0f_0f0f >> (roll() % 32),
        );
    }
    let more = if roll().is_multiple_of(odd) {
        roll()
    } else {
        roll() % 5
    };
    let available: u16 = driver
        .ram
        .map
        .read_obj(GuestAddress(driver.rings + 0x1002))
        .unwrap();
    driver.put(driver.rings + 0x1002, available.wrapping_add(more as u16));
}

#[test]
fn rings_of_anything_do_no_harm() {
    let begun = std::time::Instant::now();
    let (mut answered, mut refused) = (0u64, 0);
    for seed in 1..=20 {
        let mut roll = dice(seed);
        let mut driver = disk(8);
        for _ in 0..30 {
            scribble(&driver, &mut roll);
            if driver.ring(0).is_err() {
                refused += 1;
                assert!(driver.needs_reset());
                // It is deaf, and then well again.
                driver.ring(0).unwrap();
                driver.negotiate();
                driver.put(driver.rings + 0x1002, 0u16);
                driver.put(driver.rings + 0x2002, 0u16);
                driver.queue(0, 256);
            } else {
                answered += u64::from(driver.used());
            }
        }
        driver.negotiate();
        driver.put(driver.rings + 0x2002, 0u16);
        driver.queue(0, 256);
        let read = request(&mut driver, VIRTIO_BLK_T_IN, 0, 512);
        assert_eq!(read, VIRTIO_BLK_S_OK, "after {seed}");
        let (mut driver, host) = console();
        host.input.window(25, 80);
        for n in 0..30 {
            for queue in [RECEIVE as u32, TRANSMIT as u32] {
                driver.queue(queue, 64);
                scribble(&driver, &mut roll);
                if driver.ring(queue).is_err() {
                    refused += 1;
                    driver.negotiate();
                }
            }
            let shown = host.stdout.lock().unwrap().len();
            // Whatever it shows was in its descriptors.
            assert!(shown < (n + 1) * 64 * (64 << 10), "{shown} bytes");
        }
    }
    assert!(answered > 100 && refused > 100, "{answered} {refused}");
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(60), "{took:?}");
}

struct Host {
    stop: Arc<Stop>,
    input: Arc<Input>,
    stdout: Arc<std::sync::Mutex<Vec<u8>>>,
}

fn console() -> (Driver<Console>, Host) {
    let stop = Stop::new().unwrap();
    let input = Input::new().unwrap();
    let (out, stdout) = Sink::capture();
    let link = Link::new(out, Sink::capture().0, input.clone(), stop.clone());
    let console = Console::new(link, input.clone(), stop.clone());
    let mut driver = Driver::new(console);
    driver.negotiate();
    (
        driver,
        Host {
            stop,
            input,
            stdout,
        },
    )
}

#[test]
fn the_console_carries_the_host_link() {
    let (mut driver, host) = console();
    assert_eq!(driver.get(reg::VIRTIO_MMIO_DEVICE_ID), 3);
    driver.queue(TRANSMIT as u32, 64);
    driver
        .ram
        .map
        .write_slice(
            b"\x01\0\x05\0hello\x03\0\x04\0\0\x2a\0\0",
            GuestAddress(BUFFERS),
        )
        .unwrap();
    // Packets do not end where descriptors do.
    driver.offer(&[(BUFFERS, 6, 0), (BUFFERS + 6, 11, 0)]);
    driver.ring(TRANSMIT as u32).unwrap();
    assert_eq!(*host.stdout.lock().unwrap(), b"hello");
    assert_eq!(driver.transport.device.link.exit().unwrap().status, 42 << 8);
    // Input waits for buffers, and uses as many as it takes.
    host.input.window(25, 80);
    driver.queue(RECEIVE as u32, 64);
    driver.ring(RECEIVE as u32).unwrap();
    assert_eq!(driver.used(), 0);
    driver.offer(&[(BUFFERS + 0x100, 3, WRITE), (BUFFERS + 0x200, 100, WRITE)]);
    driver.ring(RECEIVE as u32).unwrap();
    assert_eq!(driver.used(), 1);
    let len: u32 = driver
        .ram
        .map
        .read_obj(GuestAddress(driver.rings + 0x2000 + 8))
        .unwrap();
    assert_eq!(len, 8);
}

#[test]
fn a_console_without_room_or_sense_does_no_harm() {
    let (mut driver, host) = console();
    driver.queue(RECEIVE as u32, 64);
    host.input.window(25, 80);
    // Buffers that cannot take a byte.
    for _ in 0..64 {
        driver.offer(&[(BUFFERS, 100, 0)]);
    }
    driver.ring(RECEIVE as u32).unwrap();
    assert!(driver.used() >= 1);
    assert_eq!(host.stop.reason(), None);
    // A stream that is no host link ends the run.
    driver.queue(TRANSMIT as u32, 64);
    driver
        .ram
        .map
        .write_slice(b"plain text", GuestAddress(BUFFERS))
        .unwrap();
    driver.offer(&[(BUFFERS, 10, 0)]);
    driver.ring(TRANSMIT as u32).unwrap();
    assert!(matches!(host.stop.reason(), Some(Reason::Failure(_))));
}
