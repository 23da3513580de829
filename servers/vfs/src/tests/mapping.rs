use super::filesystem::MemoryFs;
use super::world::*;
use abi::proto::vfs;
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

fn lookup(w: &mut World, fd: i32) -> Result<vfs::FoundFile, Errno> {
    let request = vfs::FdLookup { who: PROGRAM, fd };
    w.ask(Endpoint::VM, 77, request);
    let (txn, found) = w.answer_to::<vfs::FdLookup>(Endpoint::VM).unwrap();
    assert_eq!(txn, 77);
    found
}

#[test]
fn a_mapping_keeps_the_file_after_unlink_and_close() {
    let (mut w, fd) = world();
    let done = lookup(&mut w, fd as i32).unwrap();
    assert_eq!(done.access, 1);
    let at = w.string(0, "/f");
    w.call(linux::__NR_unlink, &[at]).unwrap();
    w.call(linux::__NR_close, &[fd]).unwrap();
    w.settle();
    assert!(w.fs.inodes.contains_key(&done.ino));
    let page_in = vfs::PageIn {
        dev: done.dev,
        ino: done.ino,
        offset: 0,
        before: 0,
        after: 0,
    };
    w.ask(Endpoint::VM, 5, page_in);
    let paged = w.answer_to::<vfs::PageIn>(Endpoint::VM);
    assert_eq!(paged, Some((5, Ok(()))));
    let gone = vfs::References {
        ino: done.ino,
        count: 1,
    };
    let close = vfs::MapClose {
        dev: done.dev,
        files: [gone, vfs::References::default(), vfs::References::default()],
    };
    w.deliver(Endpoint::VM, Class::Post, close.encode());
    assert!(!w.fs.inodes.contains_key(&done.ino));
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let (mut w, _) = world();
    assert_eq!(lookup(&mut w, 9), Err(Errno::EBADF));
    w.call(linux::__NR_pipe, &[DATA]).unwrap();
    assert_eq!(lookup(&mut w, 1), Err(Errno::ENODEV));
    let at = w.string(0, "/f");
    let write = u64::from(linux::O_WRONLY);
    let fd = w.call(linux::__NR_open, &[at, write]).unwrap();
    assert_eq!(lookup(&mut w, fd as i32), Err(Errno::EACCES));
}

#[test]
fn a_page_comes_while_the_same_file_is_being_transferred() {
    let (mut w, fd) = world();
    let dev = lookup(&mut w, fd as i32).unwrap().dev;
    // A read is with the file system, holding the position of the open file...
    w.fs_held = true;
    assert_eq!(
        w.start(PROGRAM, linux::__NR_read, [fd, DATA, 4, 0, 0, 0]),
        None
    );
    let page_in = vfs::PageIn {
        dev,
        ino: 2,
        offset: 0,
        before: 0,
        after: 0,
    };
    w.ask(Endpoint::VM, 6, page_in);
    // ...and the page-in has reached the file system all the same.
    let (to, message) = w.others.last().unwrap();
    assert_eq!((*to, message.kind), (FS, abi::proto::fs::Peek::KIND));
}
