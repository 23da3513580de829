//! The caches: sharing with another cache, read-ahead, clustering.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::prelude::v1::*;
use std::rc::Rc;
use std::vec;

use abi::fs::{SetAttributes, SetMask};

use super::image::{Image, contents, format_image, fsck};
use crate::{
    BlockDevice, Elsewhere, Errno, MemoryDisk, New, Options, PAGE, PageStore, ROOT, Result, Volume,
};

const FILE: New = New {
    mode: 0o100644,
    uid: 0,
    gid: 0,
    rdev: 0,
};

/// Frames, some of which another cache has as well.
struct Shared {
    frames: Vec<Vec<u8>>,
    /// The frame behind each slot.
    slots: Vec<usize>,
    other: BTreeMap<(u32, u64), usize>,
    fetched: usize,
    /// How often it was asked what it has.
    asked: usize,
    capacity: usize,
    /// Slots without memory.
    vacant: Vec<bool>,
    /// So many slots may have memory that could do without.
    memory: usize,
}

impl Shared {
    fn new() -> Shared {
        Shared {
            frames: Vec::new(),
            slots: Vec::new(),
            other: BTreeMap::new(),
            fetched: 0,
            asked: 0,
            capacity: 64,
            vacant: Vec::new(),
            memory: usize::MAX,
        }
    }

    fn frame(&mut self) -> usize {
        self.frames.push(vec![0xaa; PAGE]);
        self.frames.len() - 1
    }
}

impl PageStore for Shared {
    fn capacity(&self) -> usize {
        self.capacity
    }
    fn page(&self, slot: usize) -> &[u8] {
        assert!(!self.vacant[slot]);
        &self.frames[self.slots[slot]]
    }
    fn page_mut(&mut self, slot: usize) -> &mut [u8] {
        assert!(!self.vacant[slot]);
        &mut self.frames[self.slots[slot]]
    }
    fn publish(&mut self, slot: usize, ino: u32, offset: u64) -> Result<()> {
        self.other.insert((ino, offset), self.slots[slot]);
        Ok(())
    }
    fn elsewhere(&mut self, ino: u32, offset: u64) -> Elsewhere {
        self.asked += 1;
        let pages = self.other.keys().filter(|(i, _)| *i == ino);
        let at = pages
            .clone()
            .map(|&(_, o)| o.wrapping_sub(offset) / PAGE as u64);
        Elsewhere {
            pages: at.filter(|&at| at < 64).fold(0, |bits, at| bits | 1 << at),
            any: pages.count() > 0,
        }
    }
    fn fetch(&mut self, slot: usize, ino: u32, offset: u64) -> bool {
        let Some(&frame) = self.other.get(&(ino, offset)) else {
            return false;
        };
        self.slots[slot] = frame;
        self.fetched += 1;
        true
    }
    fn discard(&mut self, slot: usize, count: usize) -> bool {
        let slots = self.vacant.get_mut(slot..slot + count);
        slots.map(|slots| slots.fill(true)).is_some()
    }
    fn supply(&mut self, slot: usize, count: usize, needed: bool) -> Result<usize> {
        let end = slot + count;
        assert!(end <= self.capacity);
        let held = self.vacant.iter().filter(|&&vacant| !vacant).count();
        let count = match needed {
            true => count,
            false => count.min(self.memory.saturating_sub(held)),
        };
        for slot in slot..slot + count {
            if slot == self.slots.len() {
                self.slots.push(0);
                self.vacant.push(true);
            }
            assert!(self.vacant[slot], "slot {slot} had memory");
            self.vacant[slot] = false;
            self.slots[slot] = self.frame();
        }
        match count {
            0 => Err(Errno::ENOMEM),
            count => Ok(count),
        }
    }
    fn release(&mut self, slot: usize) -> Result<()> {
        self.slots[slot] = self.frame();
        Ok(())
    }
    fn forget(&mut self, ino: u32, bytes: core::ops::Range<u64>) {
        self.other
            .retain(|&(i, o), _| i != ino || !bytes.contains(&o));
    }
}

fn size(size: u64) -> SetAttributes {
    SetAttributes {
        mask: SetMask::SIZE.bits(),
        size,
        ..Default::default()
    }
}

#[test]
fn published_pages_stay_the_only_ones() {
    let image = format_image(8 << 20, 1024, 128);
    let mut v = Volume::mount_with(image.disk(), Shared::new(), Options::default()).unwrap();
    let f = v.create(ROOT, b"f", FILE).unwrap();
    let mut data = contents(300_000, 3);
    assert_eq!(v.write(f, 0, &data).unwrap(), data.len());
    let other = v.create(ROOT, b"other", FILE).unwrap();
    v.write(other, 0, &contents(1 << 20, 4)).unwrap();
    for page in (0..70).step_by(7) {
        v.publish(f, page * PAGE as u64, (0, 2)).unwrap();
    }
    for round in 0..20u64 {
        // Everything of `f` leaves the cache.
        let mut sink = vec![0; 1 << 20];
        v.read(other, 0, &mut sink).unwrap();
        let at = round as usize * 14_321 % 280_000;
        let new = contents(9000, round);
        assert_eq!(v.write(f, at as u64, &new).unwrap(), 9000);
        data[at..at + 9000].copy_from_slice(&new);
        let store = v.store();
        assert!(!store.other.is_empty());
        for (&(ino, offset), &frame) in &store.other {
            assert_eq!(ino, f);
            let end = data.len().min(offset as usize + PAGE);
            let page = &data[offset as usize..end];
            assert!(store.frames[frame][..page.len()] == *page, "{offset}");
            assert!(store.frames[frame][page.len()..].iter().all(|&b| b == 0));
        }
    }
    assert!(v.store().fetched > 0);
    v.set_attributes(f, &size(100_001)).unwrap();
    let last = *v.store().other.keys().last().unwrap();
    assert!(last.1 < 100_001);
    v.unlink(ROOT, b"f", false).unwrap();
    assert!(v.store().other.is_empty());
    fsck(&Image::new(v.unmount().unwrap()));
}

#[test]
fn a_cache_that_has_nothing_is_asked_once() {
    let image = format_image(8 << 20, 1024, 128);
    let mut v = Volume::mount_with(image.disk(), Shared::new(), Options::default()).unwrap();
    let f = v.create(ROOT, b"f", FILE).unwrap();
    let data = contents(60 * PAGE, 3);
    v.write(f, 0, &data).unwrap();
    v.publish(f, 0, (0, 3)).unwrap();
    v.sync().unwrap();
    v.drop_pages();
    let mut sink = vec![0; data.len()];
    v.read(f, 0, &mut sink).unwrap();
    assert!(sink == data);
    let asked = v.store().asked;
    assert_eq!(v.store().fetched, 4);
    assert!((1..=4).contains(&asked), "asked {asked} times for 60 pages");
    v.drop_pages();
    v.store_mut().other.clear();
    v.read(f, 0, &mut sink).unwrap();
    assert!(sink == data);
    assert_eq!((v.store().asked, v.store().fetched), (asked + 1, 4));
}

#[test]
fn pages_around_come_along() {
    let image = format_image(8 << 20, 1024, 128);
    let (mut shared, reads) = (Shared::new(), Rc::new(Cell::new(0)));
    shared.capacity = 1024;
    let device = Counting {
        disk: image.disk(),
        reads: reads.clone(),
        writes: Rc::default(),
        bad: Rc::default(),
    };
    let bad = device.bad.clone();
    let mut v = Volume::mount_with(device, shared, Options::default()).unwrap();
    let f = v.create(ROOT, b"f", FILE).unwrap();
    let data = contents(300 * PAGE, 9);
    v.write(f, 0, &data).unwrap();
    v.set_attributes(f, &size(320 * PAGE as u64)).unwrap();
    v.sync().unwrap();
    let published = |v: &Volume<Counting, Shared>| {
        let pages = v.store().other.keys();
        pages
            .map(|&(_, offset)| offset / PAGE as u64)
            .collect::<Vec<_>>()
    };
    let drop = |v: &mut Volume<Counting, Shared>| {
        v.store_mut().other.clear();
        v.drop_pages();
    };
    drop(&mut v);
    reads.set(0);
    v.publish(f, 40 * PAGE as u64, (8, 23)).unwrap();
    assert_eq!(published(&v), (32..64).collect::<Vec<_>>());
    assert!(reads.get() <= 2, "{} reads", reads.get());
    for (&(_, offset), &frame) in &v.store().other {
        let expected = &data[offset as usize..][..PAGE];
        assert!(v.store().frames[frame] == expected);
    }
    // More than one request brings, and no further than the file goes; a hole stays one.
    drop(&mut v);
    v.publish(f, 128 * PAGE as u64, (0, 255)).unwrap();
    assert_eq!(published(&v), (128..300).collect::<Vec<_>>());
    drop(&mut v);
    v.publish(f, 310 * PAGE as u64, (10, 100)).unwrap();
    assert_eq!(published(&v), [310]);
    // A page that cannot be read is missing and keeps nobody else away, before or after.
    for broken in [32, 45, 63] {
        drop(&mut v);
        v.drop_metadata();
        bad.set(data[broken * PAGE..][..16].try_into().ok());
        v.publish(f, 40 * PAGE as u64, (8, 23)).unwrap();
        let there = published(&v);
        assert!(
            there.contains(&40) && !there.contains(&(broken as u64)),
            "{there:?}"
        );
        assert_eq!(
            v.publish(f, (broken * PAGE) as u64, (0, 0)),
            Err(Errno::EIO)
        );
        bad.set(None);
    }
}

#[test]
fn a_file_to_be_mapped_is_shared_once() {
    let image = format_image(8 << 20, 1024, 128);
    let mut v = Volume::mount_with(image.disk(), Shared::new(), Options::default()).unwrap();
    let f = v.create(ROOT, b"f", FILE).unwrap();
    v.write(f, 0, &contents(5 * PAGE, 3)).unwrap();
    v.share(f, 0);
    assert_eq!(v.store().other.len(), 5);
    v.store_mut().other.clear();
    v.share(f, 0);
    assert!(v.store().other.is_empty(), "it knows that they are shared");
}

#[test]
fn past_the_end_there_is_nothing_to_publish() {
    let image = format_image(1 << 20, 1024, 128);
    let mut v = Volume::mount_with(image.disk(), Shared::new(), Options::default()).unwrap();
    let f = v.create(ROOT, b"f", FILE).unwrap();
    v.set_attributes(f, &size(5000)).unwrap();
    v.publish(f, 4096, (0, 0)).unwrap();
    assert_eq!(v.publish(f, 8192, (0, 0)), Err(Errno::EFAULT));
    assert_eq!(v.publish(ROOT, 0, (0, 0)), Err(Errno::EISDIR));
}

/// Slots that lie one behind the other.
struct Row(Vec<u8>);

impl PageStore for Row {
    fn capacity(&self) -> usize {
        self.0.len() / PAGE
    }
    fn page(&self, slot: usize) -> &[u8] {
        &self.0[slot * PAGE..][..PAGE]
    }
    fn page_mut(&mut self, slot: usize) -> &mut [u8] {
        &mut self.0[slot * PAGE..][..PAGE]
    }
    fn pages_mut(&mut self, slot: usize, count: usize) -> Option<&mut [u8]> {
        self.0.get_mut(slot * PAGE..(slot + count) * PAGE)
    }
}

#[test]
fn a_row_of_pages_comes_with_one_request() {
    for (block_size, most) in [(4096, 4), (1024, 12)] {
        let image = format_image(8 << 20, block_size, 128);
        let reads = Rc::new(Cell::new(0));
        let device = Counting {
            disk: image.disk(),
            reads: reads.clone(),
            writes: Rc::default(),
            bad: Rc::default(),
        };
        let bad = device.bad.clone();
        let row = Row(vec![0xaa; 1024 * PAGE]);
        let mut v = Volume::mount_with(device, row, Options::default()).unwrap();
        let f = v.create(ROOT, b"f", FILE).unwrap();
        let data = contents(250 * PAGE + 100, 7);
        v.write(f, 0, &data).unwrap();
        v.sync().unwrap();
        v.drop_pages();
        let mut sink = vec![0; data.len()];
        reads.set(0);
        assert_eq!(v.read(f, 0, &mut sink).unwrap(), data.len());
        assert!(sink == data);
        assert!(reads.get() <= most, "{} reads", reads.get());
        // Of those around one that cannot be read all the others come.
        let broken = 100;
        v.drop_pages();
        bad.set(data[broken * PAGE..][..16].try_into().ok());
        assert_eq!(v.read(f, 0, &mut sink), Err(Errno::EIO));
        sink.fill(0);
        let before = broken * PAGE;
        assert_eq!(v.read(f, 0, &mut sink[..before]).unwrap(), before);
        assert!(sink[..before] == data[..before]);
        let after = before + PAGE;
        assert_eq!(
            v.read(f, after as u64, &mut sink[after..]).unwrap(),
            data.len() - after
        );
        assert!(sink[after..] == data[after..]);
    }
}

#[test]
fn who_reads_on_is_read_ahead_for_more_and_more() {
    let image = format_image(8 << 20, 4096, 128);
    let reads = Rc::new(Cell::new(0));
    let device = Counting {
        disk: image.disk(),
        reads: reads.clone(),
        writes: Rc::default(),
        bad: Rc::default(),
    };
    let row = Row(vec![0; 2048 * PAGE]);
    let mut v = Volume::mount_with(device, row, Options::default()).unwrap();
    let f = v.create(ROOT, b"f", FILE).unwrap();
    let data = contents(900 * PAGE, 8);
    v.write(f, 0, &data).unwrap();
    v.sync().unwrap();
    v.drop_pages();
    v.hold(f);
    reads.set(0);
    let mut sink = vec![0; PAGE];
    for page in 0..900 {
        assert_eq!(v.read(f, (page * PAGE) as u64, &mut sink).unwrap(), PAGE);
        assert!(sink == data[page * PAGE..][..PAGE]);
    }
    // 32, 64, 128 pages, then 256 at a time, and where a map block lies between.
    assert!(reads.get() <= 9, "{} reads", reads.get());
    // Who does not is not read ahead for.
    v.drop_pages();
    reads.set(0);
    for page in (1..900).rev().step_by(100) {
        v.read(f, (page * PAGE) as u64, &mut sink).unwrap();
    }
    assert_eq!(reads.get(), 9);
}

/// Counts requests.
struct Counting {
    disk: MemoryDisk,
    reads: Rc<Cell<usize>>,
    writes: Rc<Cell<usize>>,
    /// A sector that begins like this cannot be read.
    bad: Rc<Cell<Option<[u8; 16]>>>,
}

impl BlockDevice for Counting {
    fn sectors(&self) -> u64 {
        self.disk.sectors()
    }
    fn read(&mut self, sector: u64, buffer: &mut [u8]) -> Result<()> {
        self.reads.set(self.reads.get() + 1);
        self.disk.read(sector, buffer)?;
        let bad = self.bad.get();
        let mut sectors = buffer.chunks(crate::SECTOR);
        match sectors.any(|sector| bad.is_some_and(|bad| sector.starts_with(&bad))) {
            true => Err(Errno::EIO),
            false => Ok(()),
        }
    }
    fn write(&mut self, sector: u64, buffer: &[u8]) -> Result<()> {
        assert!(buffer.len() <= crate::TRANSFER);
        self.writes.set(self.writes.get() + 1);
        self.disk.write(sector, buffer)
    }
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn requests_are_few_and_large() {
    for block_size in [1024, 4096] {
        let image = format_image(16 << 20, block_size, 128);
        let (reads, writes) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let device = |disk| Counting {
            disk,
            reads: reads.clone(),
            writes: writes.clone(),
            bad: Rc::default(),
        };
        let mut v = Volume::mount(device(image.disk()), Options::default()).unwrap();
        let f = v.create(ROOT, b"f", FILE).unwrap();
        let data = contents(4 << 20, 1);
        for (i, part) in data.chunks(10_000).enumerate() {
            v.write(f, i as u64 * 10_000, part).unwrap();
        }
        v.sync().unwrap();
        let ideal = data.len() / crate::TRANSFER;
        assert!(writes.get() < 2 * ideal + 20, "{} writes", writes.get());
        let disk = v.unmount().unwrap().disk;
        let mut v = Volume::mount(device(disk), Options::default()).unwrap();
        let f = v.lookup(ROOT, b"f").unwrap();
        v.hold(f);
        reads.set(0);
        let mut buffer = [0; 3000];
        let mut at = 0;
        while at < data.len() {
            let n = v.read(f, at as u64, &mut buffer).unwrap();
            assert!(buffer[..n] == data[at..at + n]);
            at += n;
        }
        // Each map block is one more.
        let maps = data.len() / (block_size * block_size / 4) + 2;
        assert!(reads.get() < 2 * ideal + maps, "{} reads", reads.get());
    }
}

#[test]
fn dropped_pages_come_from_the_disk_and_changed_ones_stay() {
    let image = format_image(8 << 20, 1024, 128);
    let mut shared = Shared::new();
    shared.capacity = 256;
    let mut v = Volume::mount_with(image.disk(), shared, Options::default()).unwrap();
    let f = v.create(ROOT, b"f", FILE).unwrap();
    let mut data = contents(150 * PAGE, 5);
    v.write(f, 0, &data).unwrap();
    v.sync().unwrap();
    for page in 0..4 {
        v.publish(f, page * PAGE as u64, (0, 0)).unwrap();
    }
    v.write(f, 100 * PAGE as u64, b"changed").unwrap();
    data[100 * PAGE..][..7].copy_from_slice(b"changed");
    assert_eq!(v.drop_pages(), 149);
    v.drop_metadata();
    assert_eq!(v.drop_pages(), 0);
    assert_eq!(held(&v), 64 + 1);
    // What the other cache let go of comes from the disk, the rest from there.
    let frame = v.store_mut().other.remove(&(f, 0)).unwrap();
    v.store_mut().frames[frame].fill(0xee);
    let mut sink = vec![0; data.len()];
    v.read(f, 0, &mut sink).unwrap();
    assert!(sink == data);
    assert_eq!(v.store().fetched, 3);
    v.write(f, 0, b"again").unwrap();
    data[..5].copy_from_slice(b"again");
    v.sync().unwrap();
    assert_eq!(v.drop_pages(), 150);
    v.drop_metadata();
    v.read(f, 0, &mut sink).unwrap();
    assert!(sink == data);
    // Where memory is short, it goes on with the little that it has.
    v.drop_pages();
    v.store_mut().memory = 0;
    sink.fill(0);
    v.read(f, 0, &mut sink).unwrap();
    assert!(sink == data);
    v.write(f, 0, &data[PAGE..]).unwrap();
    data.copy_within(PAGE.., 0);
    assert_eq!(held(&v), 64);
    v.store_mut().memory = usize::MAX;
    v.read(f, 0, &mut sink).unwrap();
    assert!(sink == data);
    image.store(v.unmount().unwrap());
    fsck(&image);
}

/// Slots that have memory.
fn held(v: &Volume<MemoryDisk, Shared>) -> usize {
    let slots = v.store().vacant.iter();
    slots.filter(|&&vacant| !vacant).count()
}

fn with_memory(memory: usize) -> (Image, Volume<MemoryDisk, Shared>) {
    let image = format_image(16 << 20, 4096, 128);
    let mut shared = Shared::new();
    (shared.capacity, shared.memory) = (1 << 20, memory);
    let v = Volume::mount_with(image.disk(), shared, Options::default()).unwrap();
    (image, v)
}

#[test]
fn a_cache_grows_as_it_is_used_and_into_all_memory() {
    let (_, mut v) = with_memory(usize::MAX);
    assert_eq!(held(&v), 0, "it starts empty");
    let f = v.create(ROOT, b"f", FILE).unwrap();
    let data = contents(3000 * PAGE, 5);
    v.write(f, 0, &data[..PAGE]).unwrap();
    assert_eq!(held(&v), 64);
    v.write(f, 0, &data).unwrap();
    assert!((3000..3300).contains(&held(&v)), "{}", held(&v));
    v.sync().unwrap();
    // All of it is there: nothing comes from the disk any more.
    let mut sink = vec![0; data.len()];
    for slot in v.store_mut().frames.iter_mut().take(1) {
        slot.fill(0xee);
    }
    v.read(f, 0, &mut sink).unwrap();
    assert!(sink[..PAGE].iter().all(|&b| b == 0xee) && sink[PAGE..] == data[PAGE..]);
}

#[test]
fn where_there_is_no_more_memory_the_oldest_page_makes_room() {
    let (image, mut v) = with_memory(100);
    let f = v.create(ROOT, b"f", FILE).unwrap();
    let data = contents(1000 * PAGE, 6);
    v.write(f, 0, &data).unwrap();
    let mut sink = vec![0; data.len()];
    // In one piece: more than it can have at once.
    assert_eq!(v.read(f, 0, &mut sink).unwrap(), data.len());
    assert!(sink == data);
    assert_eq!(held(&v), 100);
    // More memory is found as soon as there is some again.
    v.store_mut().memory = 600;
    v.read(f, 0, &mut sink).unwrap();
    v.read(f, 0, &mut sink).unwrap();
    assert_eq!((held(&v), sink == data), (600, true));
    fsck(&{
        image.store(v.unmount().unwrap());
        image
    });
}

#[test]
fn memory_is_given_back_oldest_first_and_changes_are_written() {
    let (image, mut v) = with_memory(usize::MAX);
    let f = v.create(ROOT, b"f", FILE).unwrap();
    let mut data = contents(1000 * PAGE, 7);
    v.write(f, 0, &data).unwrap();
    v.write(f, 10, b"changed").unwrap();
    data[10..17].copy_from_slice(b"changed");
    v.publish(f, 500 * PAGE as u64, (0, 0)).unwrap();
    let before = held(&v);
    assert_eq!(v.give_back(300), 300);
    assert_eq!(held(&v), before - 300);
    // What went is on the disk.
    v.store_mut().memory = 0;
    let mut sink = vec![0; data.len()];
    v.read(f, 0, &mut sink).unwrap();
    assert!(sink == data);
    // A few stay, whoever asks and however often.
    let all = held(&v) - 64;
    assert_eq!((v.give_back(usize::MAX), held(&v)), (all, 64));
    assert_eq!((v.give_back(1), held(&v)), (0, 64));
    v.read(f, 0, &mut sink).unwrap();
    assert!(sink == data);
    // Slots without memory are found again, row by row.
    v.store_mut().memory = usize::MAX;
    for _ in 0..300 {
        v.read(f, 0, &mut sink).unwrap();
        assert!(sink == data);
        v.give_back(77);
    }
    assert!(v.store().slots.len() < 1400, "{}", v.store().slots.len());
    image.store(v.unmount().unwrap());
    fsck(&image);
}
