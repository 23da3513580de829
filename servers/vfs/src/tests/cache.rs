use super::filesystem::MemoryFs;
use super::world::*;
use abi::Errno;
use abi::proto::vfs;
use abi::{Class, Endpoint, Request};
use linux_raw_sys::general as linux;

const REG: u32 = linux::S_IFREG | 0o644;

fn stat(w: &mut World, path: &str) -> Result<u64, Errno> {
    let at = w.string(0, path);
    w.call(linux::__NR_stat, &[at, DATA])
}

#[test]
fn names_are_looked_up_once_and_forgotten_when_they_change() {
    let mut fs = MemoryFs::new();
    fs.add(1, "x", REG, b"");
    let mut w = World::with(fs);
    for _ in 0..3 {
        stat(&mut w, "/x").unwrap();
        assert_eq!(stat(&mut w, "/y"), Err(Errno::ENOENT));
    }
    assert_eq!(w.fs.lookups, 2, "positive and negative entries");
    let (x, y) = (w.string(0, "/x"), w.string(1, "/y"));
    w.call(linux::__NR_rename, &[x, y]).unwrap();
    stat(&mut w, "/y").unwrap();
    assert_eq!(stat(&mut w, "/x"), Err(Errno::ENOENT));
    let y = w.string(0, "/y");
    w.call(linux::__NR_unlink, &[y]).unwrap();
    assert_eq!(stat(&mut w, "/y"), Err(Errno::ENOENT));
    w.call(linux::__NR_mkdir, &[y, 0o755]).unwrap();
    stat(&mut w, "/y/.").unwrap();
    let y = w.string(0, "/y");
    w.call(linux::__NR_rmdir, &[y]).unwrap();
    assert_eq!(stat(&mut w, "/y"), Err(Errno::ENOENT));
}

#[test]
fn a_reused_inode_number_inherits_no_names() {
    let mut w = World::new();
    let d = w.string(0, "/d");
    w.call(linux::__NR_mkdir, &[d, 0o755]).unwrap();
    assert_eq!(stat(&mut w, "/d/f"), Err(Errno::ENOENT));
    let d = w.string(0, "/d");
    w.call(linux::__NR_rmdir, &[d]).unwrap();
    w.call(linux::__NR_mkdir, &[d, 0o755]).unwrap();
    let ino = w.fs.inode(1).names[&b"d"[..]];
    w.fs.add(ino, "f", REG, b"");
    stat(&mut w, "/d/f").unwrap();
}

#[test]
fn an_unlinked_file_lives_until_its_last_close_and_references_balance() {
    let mut fs = MemoryFs::new();
    let ino = fs.add(1, "f", REG, b"data");
    let mut w = World::with(fs);
    let f = w.string(0, "/f");
    let fd = w.call(linux::__NR_open, &[f, 0]).unwrap();
    w.call(linux::__NR_unlink, &[f]).unwrap();
    assert_eq!(w.call(linux::__NR_read, &[fd, DATA, 9]), Ok(4));
    assert!(w.fs.inodes.contains_key(&ino));
    w.call(linux::__NR_close, &[fd]).unwrap();
    w.settle();
    assert!(!w.fs.inodes.contains_key(&ino), "freed at the last close");
}

#[test]
fn counting_leaves_the_cache_alone() {
    let mut fs = MemoryFs::new();
    let deep = fs.add(1, "deep", linux::S_IFDIR | 0o755, b"");
    let deeper = fs.add(deep, "deeper", linux::S_IFDIR | 0o755, b"");
    fs.add(deeper, "f", REG, b"");
    fs.add(deeper, "g", REG, b"");
    let mut w = World::with(fs);
    let used = |w: &World| w.vfs.root_mount().unwrap().vnodes_in_use().unwrap();
    assert_eq!(used(&w), 1, "the root");
    for path in ["/deep/deeper/f", "/deep/deeper/g"] {
        stat(&mut w, path).unwrap();
    }
    assert_eq!(stat(&mut w, "/deep/none"), Err(Errno::ENOENT));
    let lookups = w.fs.lookups;
    // An open file needs the directories above it, a working directory likewise.
    assert_eq!(used(&w), 1);
    let f = w.string(0, "/deep/deeper/f");
    let fd = w.call(linux::__NR_open, &[f, 0]).unwrap();
    assert_eq!(used(&w), 4);
    w.call(linux::__NR_close, &[fd]).unwrap();
    assert_eq!(used(&w), 1);
    let deep = w.string(0, "/deep");
    w.call(linux::__NR_chdir, &[deep]).unwrap();
    assert_eq!(used(&w), 2);
    stat(&mut w, "deeper/g").unwrap();
    assert_eq!(w.fs.lookups, lookups);
    // What is counted is what is left when the cache goes.
    w.vfs.names.clear();
    assert_eq!(used(&w), 2);
    assert_eq!(w.vfs.root_mount().unwrap().vnode_count(), 2);
}

#[test]
fn counters_return_to_their_start() {
    let mut fs = MemoryFs::new();
    fs.add(1, "f", REG, b"data");
    let mut w = World::with(fs);
    let figures = |w: &mut World| {
        let message = vfs::VfsCounters {}.encode();
        w.vfs.message(Endpoint::PM, Class::Call, &message);
        w.settle();
        let replies = core::mem::take(&mut *w.fake.replies.borrow_mut());
        replies.last().unwrap().1
    };
    let before = figures(&mut w);
    for _ in 0..5 {
        let f = w.string(0, "/f");
        let fd = w.call(linux::__NR_open, &[f, 0]).unwrap();
        w.call(linux::__NR_pipe, &[DATA]).unwrap();
        let fork = vfs::Fork {
            parent: PROGRAM,
            child: OTHER,
            pid: 7,
            share_files: false,
            share_fs: false,
        };
        w.deliver(Endpoint::PM, Class::Call, fork.encode());
        assert_eq!(w.reply_of(Endpoint::PM), Some(Ok(0)));
        for fd in [fd, fd + 1, fd + 2] {
            w.call(linux::__NR_close, &[fd]).unwrap();
        }
        let exit = vfs::Exit { who: OTHER };
        w.deliver(Endpoint::PM, Class::Call, exit.encode());
        assert_eq!(w.reply_of(Endpoint::PM), Some(Ok(0)));
    }
    assert_eq!(figures(&mut w), before);
    let root = w.fs.inode(1).references;
    assert_eq!(root, 1, "the root is held once");
}

/// What keeps files in memory without a descriptor, directories above what is in use, is bounded, too. What is only
/// cached makes room.
#[test]
fn files_in_memory_are_charged() {
    let mut fs = MemoryFs::new();
    for n in 0..100 {
        fs.add(1, &std::format!("f{n}"), REG, b"");
    }
    let mut w = World::with(fs);
    let vnodes = w.vfs.base.accounts.vnodes.clone();
    vnodes.set_limits(rt::charge::Limits::shared(40));
    for n in 0..100 {
        stat(&mut w, &std::format!("/f{n}")).unwrap();
    }
    assert!(vnodes.used() <= 40);
    let (deeper, top) = (w.string(0, "d"), w.string(1, "/"));
    for _ in 0..2 {
        w.call(linux::__NR_chdir, &[top]).unwrap();
        let mut deep = 0;
        let refused = loop {
            let made = w.call(linux::__NR_mkdir, &[deeper, 0o777]);
            assert!(matches!(made, Ok(_) | Err(Errno::ENOMEM | Errno::EEXIST)));
            if let Err(errno) = w.call(linux::__NR_chdir, &[deeper]) {
                break errno;
            }
            deep += 1;
            assert!(deep <= 40);
        };
        assert_eq!((refused, deep, vnodes.used()), (Errno::ENOMEM, 40, 40));
    }
    w.call(linux::__NR_chdir, &[top]).unwrap();
    w.vfs.names.clear();
    assert_eq!(vnodes.used(), 0);
}
