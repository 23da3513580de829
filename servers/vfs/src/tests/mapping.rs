use super::filesystem::MemoryFs;
use super::world::*;
use abi::proto::{vfs, vm};
use abi::{Class, Endpoint, Errno, Request};
use linux_raw_sys::general as linux;

fn world() -> (World, u64) {
    let mut fs = MemoryFs::new();
    fs.add(1, "f", linux::S_IFREG | 0o644, b"data");
    let mut w = World::with(fs);
    let at = w.string(0, "/f");
    let fd = w.call(linux::__NR_open, &[at, 0]).unwrap();
    (w, fd)
}

fn lookup(w: &mut World, fd: i32) -> vm::FdLookupDone {
    let request = vfs::FdLookup {
        txn: 77,
        who: PROGRAM,
        fd,
    };
    w.deliver(Endpoint::VM, Class::Post, request.encode());
    let (to, message) = w.others.pop().unwrap();
    assert_eq!(to, Endpoint::VM);
    vm::FdLookupDone::decode(&message).unwrap()
}

#[test]
fn a_mapping_keeps_the_file_after_unlink_and_close() {
    let (mut w, fd) = world();
    let done = lookup(&mut w, fd as i32);
    assert_eq!((done.status, done.access), (Ok(()), 1));
    let at = w.string(0, "/f");
    w.call(linux::__NR_unlink, &[at]).unwrap();
    w.call(linux::__NR_close, &[fd]).unwrap();
    w.settle();
    assert!(w.fs.inodes.contains_key(&done.ino));
    let page_in = vfs::PageIn {
        txn: 5,
        dev: done.dev,
        ino: done.ino,
        offset: 0,
        before: 0,
        after: 0,
    };
    w.deliver(Endpoint::VM, Class::Post, page_in.encode());
    let (_, message) = w.others.pop().unwrap();
    let paged = vm::PageInDone::decode(&message).unwrap();
    assert_eq!((paged.txn, paged.status), (5, Ok(())));
    let close = vfs::MapClose {
        dev: done.dev,
        ino: done.ino,
        references: 1,
        ino2: 0,
        references2: 0,
        ino3: 0,
        references3: 0,
    };
    w.deliver(Endpoint::VM, Class::Post, close.encode());
    assert!(!w.fs.inodes.contains_key(&done.ino));
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let (mut w, _) = world();
    assert_eq!(lookup(&mut w, 9).status, Err(Errno::EBADF));
    w.call(linux::__NR_pipe, &[DATA]).unwrap();
    assert_eq!(lookup(&mut w, 1).status, Err(Errno::ENODEV));
    let at = w.string(0, "/f");
    let write = u64::from(linux::O_WRONLY);
    let fd = w.call(linux::__NR_open, &[at, write]).unwrap();
    assert_eq!(lookup(&mut w, fd as i32).status, Err(Errno::EACCES));
}

#[test]
fn a_page_comes_while_the_same_file_is_being_transferred() {
    let (mut w, fd) = world();
    let dev = lookup(&mut w, fd as i32).dev;
    // A read is with the file system, holding the position of the open file...
    w.fs_held = true;
    assert_eq!(
        w.start(PROGRAM, linux::__NR_read, [fd, DATA, 4, 0, 0, 0]),
        None
    );
    let page_in = vfs::PageIn {
        txn: 6,
        dev,
        ino: 2,
        offset: 0,
        before: 0,
        after: 0,
    };
    w.deliver(Endpoint::VM, Class::Post, page_in.encode());
    // ...and the page-in has reached the file system all the same.
    let (to, message) = w.others.last().unwrap();
    assert_eq!((*to, message.kind), (FS, abi::proto::fs::Peek::KIND));
}
