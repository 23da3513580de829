//! File systems and drivers that die.

use super::world::*;
use abi::proto::{fs, vfs};
use abi::role::Role;
use abi::{Class, Endpoint, Errno, Request};
use linux_raw_sys::general as linux;

const OPEN: u32 = linux::__NR_open;
const CREATE: u64 = (linux::O_RDWR | linux::O_CREAT) as u64;

/// An open file that has a byte.
fn open(w: &mut World) -> u64 {
    let path = w.string(0, "/file");
    let fd = w.call(OPEN, &[path, CREATE, 0o644]).unwrap();
    assert_eq!(w.call(linux::__NR_write, &[fd, DATA, 1]), Ok(1));
    fd
}

fn die(w: &mut World, from: Endpoint, who: Endpoint) {
    w.deliver(from, Class::Post, vfs::Died { who }.encode());
}

#[test]
fn every_call_on_a_dead_file_system_is_an_io_error() {
    let mut w = World::new();
    let fd = open(&mut w);
    w.fs_held = true;
    let waiting = w.start(PROGRAM, linux::__NR_pread64, [fd, DATA, 1, 0, 0, 0]);
    assert_eq!(waiting, None);
    let page_in = vfs::PageIn {
        dev: w.vfs.root_mount().unwrap().dev,
        ino: 2,
        offset: 0,
        before: 0,
        after: 0,
    };
    w.ask(Endpoint::VM, 7, page_in);
    let sync = vfs::SyncFile {
        dev: page_in.dev,
        ino: 2,
    };
    w.ask(Endpoint::VM, 8, sync);
    // Only RS knows who is dead.
    for from in [DRIVER, Endpoint::VM] {
        die(&mut w, from, FS);
        assert_eq!(w.reply_of(PROGRAM), None);
    }
    w.others.clear();
    die(&mut w, Endpoint::RS, FS);
    let eio = Err(Errno::EIO);
    assert_eq!(w.reply_of(PROGRAM), Some(eio));
    let failed = Err(Errno::EIO);
    assert_eq!(w.answer_to::<vfs::PageIn>(Endpoint::VM), Some((7, failed)));
    assert_eq!(
        w.answer_to::<vfs::SyncFile>(Endpoint::VM),
        Some((8, failed))
    );
    w.others.clear();

    // What VFS remembers, the file's size and name among it, does not hide the death.
    let path = w.string(0, "/file");
    let new = w.string(1, "/new");
    for (number, args) in [
        (OPEN, [path, 0, 0, 0]),
        (OPEN, [new, CREATE, 0o644, 0]),
        (linux::__NR_stat, [path, DATA, 0, 0]),
        (linux::__NR_pread64, [fd, DATA, 1, 100]),
        (linux::__NR_pwrite64, [fd, DATA, 1, 0]),
        (linux::__NR_write, [fd, DATA, 0, 0]),
        (linux::__NR_fsync, [fd, 0, 0, 0]),
        (linux::__NR_fstat, [fd, DATA, 0, 0]),
        (linux::__NR_rename, [path, new, 0, 0]),
    ] {
        assert_eq!(w.call(number, &args), eio, "{number}");
    }
    w.ask(Endpoint::VM, 9, page_in);
    assert_eq!(w.answer_to::<vfs::PageIn>(Endpoint::VM), Some((9, failed)));
    assert_eq!(w.call(linux::__NR_close, &[fd]), Ok(0));
    assert_eq!(w.vfs.base.machine.grants(), 0, "grants are revoked");
    assert_eq!(w.vfs.base.spawner.tasks(), 0, "nothing waits for ever");
}

/// The internal error of VFS, and Linux's for a call that is to be made again.
#[test]
fn no_file_system_makes_a_program_call_again() {
    for errno in [85, 512, 4000] {
        let mut w = World::new();
        let fd = open(&mut w);
        w.fs_held = true;
        w.others.clear();
        w.start(PROGRAM, linux::__NR_pread64, [fd, DATA, 1, 0, 0, 0]);
        let (txn, _) = w.asked::<fs::Read>(FS);
        w.answer::<fs::Read>(FS, txn, Err(Errno(errno)));
        assert_eq!(w.reply_of(PROGRAM), Some(Err(Errno::EIO)), "{errno}");
    }
}

#[test]
fn a_file_system_that_dies_while_it_is_mounted_is_no_mount() {
    let mut w = World::new();
    let second = Endpoint::service(Role::FileSystem, 12, 0);
    let mount = vfs::Mount {
        fs: second,
        path: *b"/other\0\0\0\0\0\0\0\0\0\0",
        flags: 0,
        kind: *b"tmpfs\0\0\0",
    };
    w.others.clear();
    w.ask(Endpoint::RS, 1, mount);
    assert_eq!(w.answer_to::<vfs::Mount>(Endpoint::RS), None);
    die(&mut w, Endpoint::RS, second);
    let failed = Err(Errno::EIO);
    assert_eq!(w.answer_to::<vfs::Mount>(Endpoint::RS), Some((1, failed)));
    // Likewise when it was dead before.
    w.ask(Endpoint::RS, 2, mount);
    assert_eq!(w.answer_to::<vfs::Mount>(Endpoint::RS), Some((2, failed)));
    let path = w.string(0, "/other");
    assert_eq!(w.call(OPEN, &[path, 0, 0]), Err(Errno::ENOENT));
}
