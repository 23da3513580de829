use super::world::*;
use crate::file::{Kind, OpenFile};
use abi::proto::{device, vfs};
use abi::{Class, Endpoint, Errno, Request};
use linux_raw_sys::{general as linux, ioctl};

const MAJOR: u32 = 5;

/// A world whose descriptor 0 is a terminal.
fn world() -> World {
    let mut w = World::new();
    let driver = vfs::Driver {
        major: MAJOR,
        block: false,
        driver: DRIVER,
    };
    w.deliver(Endpoint::RS, Class::Call, driver.encode());
    assert_eq!(w.reply_of(Endpoint::RS), Some(Ok(0)));
    let kind = Kind::Device(w.vfs.driver(MAJOR).unwrap(), 1);
    let c = crate::state::Caller {
        vfs: w.vfs.clone(),
        process: w.vfs.process(PROGRAM).unwrap(),
    };
    let file = OpenFile::new(c.context(), kind, None, None, linux::O_RDWR).unwrap();
    c.process.files().set(0, file, false, c.payer()).unwrap();
    w
}

/// The driver's last request that is not answered.
fn told<R: Request>(w: &mut World) -> R {
    let (to, message) = w.others.pop().expect("a request");
    assert_eq!(to, DRIVER);
    R::decode(&message).unwrap()
}

fn moved(w: &mut World, txn: u64, result: Result<u64, Errno>) {
    let result = result.map(|bytes| device::Moved { bytes });
    w.answer::<device::Read>(DRIVER, txn, result);
}

fn start(w: &mut World, number: u32, args: [u64; 6]) {
    assert_eq!(w.start(PROGRAM, number, args), None);
}

#[test]
fn a_read_waits_and_is_repaired_when_its_buffer_is_absent() {
    let mut w = world();
    w.fake.set_present(PROGRAM, DATA, false);
    start(&mut w, linux::__NR_read, [0, DATA, 100, 0, 0, 0]);
    let (first_txn, first) = w.asked::<device::Read>(DRIVER);
    let copied = w.fake.copy_to_grant(DRIVER, first.grant, 0, b"line\n");
    assert_eq!(copied, Err(Errno::EFAULT));
    moved(&mut w, first_txn, Err(Errno::EFAULT));
    let (second_txn, second) = w.asked::<device::Read>(DRIVER);
    assert_ne!(second_txn, first_txn);
    let copied = w.fake.copy_to_grant(DRIVER, second.grant, 0, b"line\n");
    assert_eq!(copied, Ok(()));
    moved(&mut w, second_txn, Ok(5));
    assert_eq!(w.reply_of(PROGRAM), Some(Ok(5)));
    assert_eq!(w.data(5), b"line\n");
}

#[test]
fn a_signal_cancels_but_data_that_came_first_counts() {
    for (answer, result) in [(Err(Errno::EINTR), Err(Errno::ERESTARTSYS)), (Ok(3), Ok(3))] {
        let mut w = world();
        start(&mut w, linux::__NR_read, [0, DATA, 100, 0, 0, 0]);
        let (txn, _) = w.asked::<device::Read>(DRIVER);
        let interrupt = vfs::Interrupt { who: PROGRAM };
        w.deliver(Endpoint::PM, Class::Post, interrupt.encode());
        let cancel: device::Cancel = told(&mut w);
        assert_eq!(cancel.target, txn);
        assert_eq!(w.reply_of(PROGRAM), None, "the driver has the last word");
        moved(&mut w, txn, answer);
        assert_eq!(w.reply_of(PROGRAM), Some(result));
    }
}

#[test]
fn an_answer_from_somebody_else_is_no_answer() {
    let mut w = world();
    start(&mut w, linux::__NR_read, [0, DATA, 100, 0, 0, 0]);
    let (txn, _) = w.asked::<device::Read>(DRIVER);
    let moved_all = Ok(device::Moved { bytes: 1 });
    w.answer::<device::Read>(FS, txn, moved_all);
    assert_eq!(w.reply_of(PROGRAM), None);
    // Nor is one to another question.
    w.answer::<device::Read>(DRIVER, txn + 1, moved_all);
    assert_eq!(w.reply_of(PROGRAM), None);
    moved(&mut w, txn, Ok(1));
    assert_eq!(w.reply_of(PROGRAM), Some(Ok(1)));
}

#[test]
fn ioctls_carry_what_their_number_says() {
    let mut w = world();
    for (number, len, value) in [
        (ioctl::TCGETS, Some(36), DATA),
        (ioctl::TIOCGWINSZ, Some(8), DATA),
        (ioctl::TIOCSPGRP, Some(4), DATA),
        (ioctl::TCGETS2, Some(44), DATA),
        (ioctl::TCFLSH, None, 2),
    ] {
        let args = [0, u64::from(number), value, 0, 0, 0];
        start(&mut w, linux::__NR_ioctl, args);
        let (txn, sent) = w.asked::<device::Ioctl>(DRIVER);
        assert_eq!((sent.request, sent.value), (u64::from(number), value));
        assert_eq!(sent.grant.is_some(), len.is_some());
        assert_eq!(crate::device::argument(number).map(|(_, len)| len), len);
        w.answer::<device::Ioctl>(DRIVER, txn, Ok(device::Controlled { value: 0 }));
        assert_eq!(w.reply_of(PROGRAM), Some(Ok(0)));
    }
    let args = [0, u64::from(ioctl::TCGETS), u64::MAX - 3, 0, 0, 0];
    let result = w.start(PROGRAM, linux::__NR_ioctl, args);
    assert_eq!(result, Some(Err(Errno::EFAULT)));
}

#[test]
fn a_poll_asks_again_when_the_driver_says_so() {
    let mut w = world();
    w.fake.poke(PROGRAM, DATA, &0u32.to_le_bytes());
    w.fake.poke(PROGRAM, DATA + 4, &[linux::POLLIN as u8, 0]);
    let forever = u64::from(u32::MAX);
    start(&mut w, linux::__NR_poll, [DATA, 1, forever, 0, 0, 0]);
    let (txn, _) = w.asked::<device::Poll>(DRIVER);
    w.answer::<device::Poll>(DRIVER, txn, Ok(device::Events { events: 0 }));
    assert!(w.others.is_empty(), "asked once");
    let ready = vfs::Ready {
        major: MAJOR,
        minor: 1,
        events: linux::POLLIN,
    };
    // Only the driver itself may say so.
    w.deliver(FS, Class::Post, ready.encode());
    assert!(w.others.is_empty());
    w.deliver(DRIVER, Class::Post, ready.encode());
    let (txn, _) = w.asked::<device::Poll>(DRIVER);
    let events = linux::POLLIN;
    w.answer::<device::Poll>(DRIVER, txn, Ok(device::Events { events }));
    assert_eq!(w.reply_of(PROGRAM), Some(Ok(1)));
    assert_eq!(w.fake.peek(PROGRAM, DATA + 6, 1), [linux::POLLIN as u8]);
}

#[test]
fn a_call_costs_little_memory() {
    let w = World::new();
    let c = crate::state::Caller {
        vfs: w.vfs.clone(),
        process: w.vfs.process(PROGRAM).unwrap(),
    };
    let call = crate::calls::call(&c, linux::__NR_read, [0; 6]);
    let size = size_of_val(&call);
    assert!(size <= 2560, "every Linux call allocates this: {size}");
    let exec = crate::exec::execve(&c, linux::__NR_execve, [0; 6]);
    let size = size_of_val(&exec);
    // Built on the stack before it is boxed.
    assert!(size <= 16 << 10, "{size}");
}
