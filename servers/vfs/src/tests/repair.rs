use super::filesystem::MemoryFs;
use super::world::*;
use crate::memory::{Memory, copy_out};
use abi::{Errno, PAGE, Request, page_down};
use linux_raw_sys::general as linux;
use std::vec::Vec;

const SIZE: usize = 3 * PAGE as usize;

fn contents() -> Vec<u8> {
    (0..SIZE).map(|i| (i % 253) as u8).collect()
}

fn world() -> (World, u64) {
    let mut fs = MemoryFs::new();
    fs.add(1, "f", linux::S_IFREG | 0o644, &contents());
    let mut w = World::with(fs);
    let at = w.string(0, "/f");
    let flags = u64::from(linux::O_RDWR);
    let fd = w.call(linux::__NR_open, &[at, flags]).unwrap();
    (w, fd)
}

#[test]
fn present_memory_needs_no_repair() {
    let (mut w, fd) = world();
    assert_eq!(
        w.call(linux::__NR_read, &[fd, DATA, SIZE as u64]),
        Ok(SIZE as u64)
    );
    assert_eq!(w.data(SIZE), contents());
    assert!(w.repairs.is_empty());
}

#[test]
fn an_absent_page_is_repaired_and_the_offset_moves_once() {
    for hides_faults in [false, true] {
        let (mut w, fd) = world();
        w.fs.hides_faults = hides_faults;
        w.fake.set_present(PROGRAM, DATA + PAGE, false);
        let n = w.call(linux::__NR_read, &[fd, DATA, SIZE as u64]);
        assert_eq!(n, Ok(SIZE as u64), "the mark decides, not the status");
        assert_eq!(w.data(SIZE), contents());
        assert_eq!(w.repairs, [(DATA, SIZE as u64, true)]);
        assert_eq!(w.call(linux::__NR_lseek, &[fd, 0, 1]), Ok(SIZE as u64));
        assert_eq!(crate::machine::Machine::grants(&*w.fake), 0);
    }
}

#[test]
fn an_append_from_an_absent_page_happens_once() {
    let (mut w, fd) = world();
    let append = u64::from(linux::O_APPEND);
    let set = u64::from(linux::F_SETFL);
    w.call(linux::__NR_fcntl, &[fd, set, append]).unwrap();
    w.fake.poke(PROGRAM, DATA, b"tail");
    w.fake.set_present(PROGRAM, DATA, false);
    assert_eq!(w.call(linux::__NR_write, &[fd, DATA, 4]), Ok(4));
    assert_eq!(w.repairs, [(DATA, 4, false)]);
    let ino = w.fs.inode(1).names[&b"f"[..]];
    let mut expected = contents();
    expected.extend_from_slice(b"tail");
    assert_eq!(w.fs.inode(ino).data, expected);
    assert_eq!(w.call(linux::__NR_lseek, &[fd, 0, 1]), Ok(SIZE as u64 + 4));
}

#[test]
fn only_what_can_be_transferred_is_repaired() {
    let (mut w, fd) = world();
    w.call(linux::__NR_lseek, &[fd, SIZE as u64 - 10, 0])
        .unwrap();
    w.fake.set_present(PROGRAM, DATA, false);
    // The buffer's tail is not even mapped.
    assert_eq!(w.call(linux::__NR_read, &[fd, DATA, 0x400000]), Ok(10));
    assert_eq!(w.repairs, [(DATA, 10, true)]);
}

#[test]
fn a_bad_tail_gives_the_good_beginning() {
    let (mut w, fd) = world();
    let end = DATA + 0x10000;
    let start = end - PAGE - 5;
    assert_eq!(
        w.call(linux::__NR_read, &[fd, start, SIZE as u64]),
        Ok(PAGE + 5)
    );
    assert_eq!(w.fake.peek(PROGRAM, start, 5), contents()[..5]);
    assert_eq!(w.call(linux::__NR_lseek, &[fd, 0, 1]), Ok(PAGE + 5));
    assert_eq!(w.call(linux::__NR_read, &[fd, end, 1]), Err(Errno::EFAULT));
    assert_eq!(w.call(linux::__NR_lseek, &[fd, 0, 1]), Ok(PAGE + 5));
    let read_only = page_down(DATA);
    let mut pages = w.fake.pages.borrow_mut();
    pages.get_mut(&(PROGRAM, read_only)).unwrap().writable = false;
    drop(pages);
    assert_eq!(w.call(linux::__NR_read, &[fd, DATA, 1]), Err(Errno::EFAULT));
    assert_eq!(
        w.call(linux::__NR_write, &[fd, DATA, 1]),
        Ok(1),
        "reading it is fine"
    );
}

#[test]
fn pages_that_vanish_again_are_tried_for_a_bounded_time() {
    let (mut w, fd) = world();
    let flaky = |w: &World, times| {
        let mut pages = w.fake.pages.borrow_mut();
        let page = pages.get_mut(&(PROGRAM, DATA)).unwrap();
        (page.present, page.flaky) = (false, times);
    };
    flaky(&w, 5);
    assert_eq!(w.call(linux::__NR_read, &[fd, DATA, 10]), Ok(10));
    assert_eq!(w.repairs.len(), 6);
    w.repairs.clear();
    flaky(&w, u32::MAX);
    assert_eq!(
        w.call(linux::__NR_read, &[fd, DATA, 10]),
        Err(Errno::EFAULT)
    );
    assert_eq!(w.repairs.len(), crate::transfer::ATTEMPTS);
    w.repairs.clear();
    let at = DATA;
    assert_eq!(w.call(linux::__NR_fstat, &[fd, at]), Err(Errno::EFAULT));
    assert_eq!(w.repairs.len(), crate::transfer::ATTEMPTS);
}

#[test]
fn paths_and_structures_in_absent_pages_work() {
    let (mut w, fd) = world();
    let at = w.string(0, "/f");
    w.fake.set_present(PROGRAM, at, false);
    w.fake.set_present(PROGRAM, DATA, false);
    assert_eq!(w.call(linux::__NR_stat, &[at, DATA]), Ok(0));
    assert_eq!(w.repairs.len(), 2);
    w.fake.set_present(PROGRAM, DATA, false);
    assert_eq!(w.call(linux::__NR_fstat, &[fd, DATA]), Ok(0));
    assert_eq!(
        w.call(linux::__NR_stat, &[0x900000, DATA]),
        Err(Errno::EFAULT)
    );
    assert_eq!(
        w.call(linux::__NR_stat, &[u64::MAX - 5, DATA]),
        Err(Errno::EFAULT)
    );
}

#[test]
fn vectors_are_gathered_and_scattered() {
    let (mut w, fd) = world();
    let vector = PATHS + 0x2000;
    let put = |w: &World, i: u64, address: u64, len: u64| {
        w.fake
            .poke(PROGRAM, vector + i * 16, &address.to_le_bytes());
        w.fake
            .poke(PROGRAM, vector + i * 16 + 8, &len.to_le_bytes());
    };
    w.fake.poke(PROGRAM, DATA, b"abc");
    w.fake.poke(PROGRAM, DATA + 2 * PAGE, b"defg");
    w.fake.set_present(PROGRAM, DATA + 2 * PAGE, false);
    put(&w, 0, DATA, 3);
    put(&w, 1, 0, 0);
    put(&w, 2, DATA + 2 * PAGE, 4);
    assert_eq!(w.call(linux::__NR_writev, &[fd, vector, 3]), Ok(7));
    let ino = w.fs.inode(1).names[&b"f"[..]];
    assert_eq!(w.fs.inode(ino).data[..7], *b"abcdefg");
    w.call(linux::__NR_lseek, &[fd, 0, 0]).unwrap();
    put(&w, 0, DATA + PAGE, 2);
    put(&w, 2, DATA + PAGE + 100, 5);
    w.fs.requests.clear();
    assert_eq!(w.call(linux::__NR_readv, &[fd, vector, 3]), Ok(7));
    let read = abi::proto::fs::Read::KIND - abi::proto::fs::BASE;
    assert_eq!(w.fs.requests, [read], "short segments share a request");
    assert_eq!(w.fake.peek(PROGRAM, DATA + PAGE, 2), b"ab");
    assert_eq!(w.fake.peek(PROGRAM, DATA + PAGE + 100, 5), b"cdefg");
    // What comes before bad memory is transferred, and the position says so.
    w.call(linux::__NR_lseek, &[fd, 0, 0]).unwrap();
    put(&w, 1, DATA + PAGE + 50, 3);
    put(&w, 2, DATA + 77 * PAGE, 2);
    assert_eq!(w.call(linux::__NR_readv, &[fd, vector, 3]), Ok(5));
    assert_eq!(w.fake.peek(PROGRAM, DATA + PAGE + 50, 3), b"cde");
    assert_eq!(w.call(linux::__NR_lseek, &[fd, 0, 1]), Ok(5));
    assert_eq!(
        w.call(linux::__NR_readv, &[fd, vector + 32, 1]),
        Err(Errno::EFAULT)
    );
    assert_eq!(
        w.call(linux::__NR_writev, &[fd, vector, 1025]),
        Err(Errno::EINVAL)
    );
}

#[test]
fn data_that_is_lent_to_be_read_is_not_written() {
    let (w, _) = world();
    let data = *b"immutable";
    let machine: &dyn crate::machine::Machine = &*w.fake;
    assert_eq!(
        copy_out(machine, Memory::own(&data), b"CHANGED!!"),
        Err(Errno::EFAULT)
    );
    let mut buffer = [0; 4];
    copy_out(machine, Memory::own_mut(&mut buffer), b"longer").unwrap();
    assert_eq!((&data, &buffer), (b"immutable", b"long"));
}
