//! What VFS does to a process that gets a new program.

use super::machine::{DEV, INIT, Machine, byte};
use crate::table;
use abi::proto::vm as proto;
use abi::proto::vm::{MapFlags, Prot};
use abi::{Endpoint, Errno, Message, PAGE, Request};
use std::vec::Vec;

const AT: u64 = 0x40_0000;

fn file(machine: &mut Machine, pages: u64, prot: Prot, clear_end: u64) -> proto::VfsMmap {
    *machine.references.entry((DEV, 7)).or_insert(0) += 1;
    proto::VfsMmap {
        target: INIT,
        dev: DEV,
        ino: 7,
        offset: 0,
        addr: AT,
        len: pages * PAGE,
        prot_clearend: prot.bits() | clear_end << 16,
    }
}

fn anonymous(at: u64, len: u64) -> proto::Mmap {
    proto::Mmap {
        target: INIT,
        addr: at,
        len,
        prot: Prot::READ | Prot::WRITE,
        flags: MapFlags::FIXED | MapFlags::THIRD_PARTY,
    }
}

#[test]
fn a_program_that_reads_on_is_read_ahead() {
    let mut m = Machine::new(32);
    m.along = 500;
    let text = file(&mut m, 480, Prot::READ | Prot::EXEC, 0);
    m.call(Endpoint::VFS, text).unwrap();
    let mut asked = Vec::new();
    for page in 0..480 {
        let before = m.page_ins;
        let byte = m.read(INIT, AT + page * PAGE);
        assert_eq!(byte, Ok(super::machine::byte(7, page * PAGE)));
        if m.page_ins > before {
            asked.push(m.asked);
        }
    }
    let blocks = [(0, 0, 63), (64, 0, 63), (128, 0, 127), (256, 0, 255)];
    assert_eq!(asked, blocks);
}

#[test]
fn a_jump_brings_the_block_it_leads_to() {
    let mut m = Machine::new(32);
    m.along = 200;
    let text = file(&mut m, 200, Prot::READ | Prot::EXEC, 0);
    m.call(Endpoint::VFS, text).unwrap();
    m.read(INIT, AT + 70 * PAGE).unwrap();
    assert_eq!(m.asked, (70, 6, 57));
    // It is mapped without a fault more, and what is beyond it is not there.
    let there = |m: &Machine, page: u64| m.entry(INIT, AT + page * PAGE) != 0;
    assert!((64..128).all(|page| there(&m, page)));
    assert!(!there(&m, 63) && !there(&m, 128));
    // Others of the file's regions get their part at once; data gets copies.
    let mut data = file(&mut m, 4, Prot::READ | Prot::WRITE, 0);
    (data.addr, data.offset) = (AT + 300 * PAGE, 128 * PAGE);
    m.call(Endpoint::VFS, data).unwrap();
    m.read(INIT, AT + 129 * PAGE).unwrap();
    assert_eq!(m.page_ins, 2);
    assert!((300..304).all(|page| m.entry(INIT, AT + page * PAGE) & table::WRITE != 0));
}

#[test]
fn little_memory_is_not_read_ahead_into() {
    let mut m = Machine::new(16);
    m.along = 300;
    let text = file(&mut m, 300, Prot::READ | Prot::EXEC, 0);
    m.call(Endpoint::VFS, text).unwrap();
    for page in (0..192).step_by(64) {
        m.read(INIT, AT + page * PAGE).unwrap();
    }
    assert_eq!(m.asked, (128, 0, 127));
    let rest = m.frames().free() - m.frames().total() / 10;
    let anonymous = proto::Mmap {
        addr: 0x6000_0000,
        len: rest as u64 * PAGE,
        flags: MapFlags::FIXED | MapFlags::THIRD_PARTY | MapFlags::PREALLOC,
        ..anonymous(0, 0)
    };
    m.call(Endpoint::VFS, anonymous).unwrap();
    m.read(INIT, AT + 256 * PAGE).unwrap();
    assert_eq!(m.asked, (256, 0, 31));
}

/// Puts messages into VFS's memory and has VM do them.
fn batch(m: &mut Machine, messages: &[Message]) -> Result<proto::BatchDone, Errno> {
    const MESSAGES: u64 = 0x20_0000;
    // Not at the start of a page, so that they reach into the next one.
    const FIRST: u64 = MESSAGES + PAGE - 72;
    let map = proto::Mmap {
        target: Endpoint::SELF,
        addr: MESSAGES,
        len: 2 * PAGE,
        prot: Prot::READ | Prot::WRITE,
        flags: MapFlags::FIXED | MapFlags::PREALLOC,
    };
    m.call(Endpoint::VFS, map).unwrap();
    let words = messages
        .iter()
        .flat_map(|m| [m.kind].into_iter().chain(m.words));
    for (at, byte) in (FIRST..).zip(words.flat_map(u64::to_le_bytes)) {
        m.write(Endpoint::VFS, at, byte).unwrap();
    }
    let request = proto::Batch {
        address: FIRST,
        count: messages.len() as u64,
    };
    m.call(Endpoint::VFS, request)
}

#[test]
fn a_batch_does_calls_in_order_up_to_a_failure() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let good = |at| anonymous(at, PAGE).encode();
    let all = batch(m, &[good(AT), good(AT + PAGE)]).unwrap();
    assert_eq!((all.done, all.status), (2, Ok(())));
    m.write(INIT, AT + PAGE, 1).unwrap();
    let clear = proto::ProcCtl {
        param: proto::PROCCTL_CLEAR,
        who: INIT,
    };
    let bad = anonymous(AT, 0).encode();
    let nested = proto::Batch {
        address: 0,
        count: 0,
    };
    for (failing, errno) in [
        (bad, Errno::EINVAL),
        (nested.encode(), Errno::EINVAL),
        (Message::new(0x1000), Errno::ENOSYS),
    ] {
        let messages = [clear.encode(), good(AT), failing, good(AT + PAGE)];
        let some = batch(m, &messages).unwrap();
        assert_eq!((some.done, some.status), (2, Err(errno)));
        assert!(m.read(INIT, AT).is_ok());
        assert_eq!(m.read(INIT, AT + PAGE), Err(11), "not done");
    }
}

#[test]
fn a_batch_that_makes_no_sense_does_nothing() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    let request = |address, count| proto::Batch { address, count };
    let absent = m.call(Endpoint::VFS, request(0x30_0000, 1));
    assert_eq!(absent, Err(Errno::EFAULT));
    let beyond = m.call(Endpoint::VFS, request(u64::MAX - 7, 1));
    assert_eq!(beyond, Err(Errno::EFAULT));
    let crooked = m.call(Endpoint::VFS, request(0x30_0001, 0));
    assert_eq!(crooked, Err(Errno::EINVAL));
    let many = request(0x30_0000, proto::BATCH_MAX + 1);
    assert_eq!(m.call(Endpoint::VFS, many), Err(Errno::EINVAL));
    let stranger = m.call(INIT, request(0x30_0000, 0));
    assert_eq!(stranger, Err(Errno::EPERM));
}

fn writable(m: &Machine, page: u64) -> bool {
    m.entry(INIT, AT + page * PAGE) & table::WRITE != 0
}

#[test]
fn data_that_a_program_will_write_is_its_own_at_once() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    for page in 0..20 {
        m.cache(7, page * PAGE);
    }
    let map = file(m, 20, Prot::READ | Prot::WRITE, 100);
    m.call(Endpoint::VFS, map).unwrap();
    let own: Vec<u64> = (0..20).filter(|&page| writable(m, page)).collect();
    assert_eq!(own, (0..16).collect::<Vec<u64>>(), "but not without end");
    m.write(INIT, AT, 1).unwrap();
    // The first that is not copies itself, and as many as came before it.
    m.write(INIT, AT + 16 * PAGE, 2).unwrap();
    assert!((16..20).all(|page| writable(m, page)));
    assert_eq!(
        m.read(INIT, AT + 20 * PAGE - 101),
        Ok(byte(7, 20 * PAGE - 101))
    );
    assert_eq!(
        m.read(INIT, AT + 20 * PAGE - 100),
        Ok(0),
        "the end is cleared"
    );
    assert_eq!(m.page_ins, 0);
    // The file's own pages are what they were.
    let text = file(m, 20, Prot::READ | Prot::EXEC, 0);
    m.call(Endpoint::VFS, text).unwrap();
    assert!((0..20).all(|page| !writable(m, page)), "text is not copied");
    assert_eq!(m.read(INIT, AT), Ok(byte(7, 0)));
    assert_eq!(m.read(INIT, AT + 16 * PAGE), Ok(byte(7, 16 * PAGE)));
}

#[test]
fn what_is_not_cached_is_not_waited_for() {
    let mut machine = Machine::new(8);
    let m = &mut machine;
    m.cache(7, PAGE);
    let map = file(m, 3, Prot::READ | Prot::WRITE, 0);
    m.call(Endpoint::VFS, map).unwrap();
    let there: Vec<bool> = (0..3).map(|page| writable(m, page)).collect();
    assert_eq!(there, [false, true, false]);
    assert_eq!(m.page_ins, 0);
    m.write(INIT, AT + 2 * PAGE, 9).unwrap();
    assert_eq!(m.page_ins, 1);
}
