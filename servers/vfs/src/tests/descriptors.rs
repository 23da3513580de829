use super::filesystem::MemoryFs;
use super::world::*;
use abi::proto::vfs::{Exit, Fork, SetFileLimit};
use abi::{Class, Endpoint, Errno, Request};
use linux_raw_sys::general as linux;
use rt::charge::Limits;

fn world() -> World {
    let mut fs = MemoryFs::new();
    fs.add(1, "f", linux::S_IFREG | 0o644, b"0123456789");
    World::with(fs)
}

fn open(w: &mut World, flags: u32) -> u64 {
    let at = w.string(0, "/f");
    w.call(linux::__NR_open, &[at, u64::from(flags)]).unwrap()
}

#[test]
fn descriptors_are_the_lowest_free_ones() {
    let mut w = world();
    assert_eq!(
        [open(&mut w, 0), open(&mut w, 0), open(&mut w, 0)],
        [0, 1, 2]
    );
    w.call(linux::__NR_close, &[1]).unwrap();
    assert_eq!(w.call(linux::__NR_close, &[1]), Err(Errno::EBADF));
    assert_eq!(w.call(linux::__NR_dup, &[0]), Ok(1));
    assert_eq!(w.call(linux::__NR_dup2, &[0, 9]), Ok(9));
    assert_eq!(w.call(linux::__NR_dup2, &[9, 9]), Ok(9));
    assert_eq!(w.call(linux::__NR_dup3, &[9, 9, 0]), Err(Errno::EINVAL));
    assert_eq!(w.call(linux::__NR_dup2, &[0, 1024]), Err(Errno::EBADF));
    let dup = u64::from(linux::F_DUPFD_CLOEXEC);
    assert_eq!(w.call(linux::__NR_fcntl, &[0, dup, 5]), Ok(5));
    let get = u64::from(linux::F_GETFD);
    assert_eq!(w.call(linux::__NR_fcntl, &[5, get]), Ok(1));
    for _ in 0..1024 - 5 {
        open(&mut w, 0);
    }
    let at = w.string(0, "/f");
    assert_eq!(w.call(linux::__NR_open, &[at, 0]), Err(Errno::EMFILE));
}

#[test]
fn the_limit_holds_for_every_new_descriptor() {
    let mut w = world();
    open(&mut w, 0);
    let limit = |w: &mut World, files| {
        let request = SetFileLimit {
            who: PROGRAM,
            files,
            size: u64::MAX,
        };
        w.deliver(Endpoint::PM, Class::Call, request.encode());
        assert_eq!(w.reply_of(Endpoint::PM), Some(Ok(0)));
    };
    limit(&mut w, 3);
    assert_eq!(w.call(linux::__NR_dup, &[0]), Ok(1));
    assert_eq!(w.call(linux::__NR_dup2, &[0, 3]), Err(Errno::EBADF));
    assert_eq!(w.call(linux::__NR_dup2, &[0, 2]), Ok(2));
    assert_eq!(w.call(linux::__NR_dup, &[0]), Err(Errno::EMFILE));
    let dup = u64::from(linux::F_DUPFD);
    assert_eq!(w.call(linux::__NR_fcntl, &[0, dup, 3]), Err(Errno::EINVAL));
    limit(&mut w, u64::MAX);
    assert_eq!(w.call(linux::__NR_fcntl, &[0, dup, 2000]), Ok(2000));
    assert_eq!(w.call(linux::__NR_dup2, &[0, 4096]), Err(Errno::EBADF));
    limit(&mut w, 1);
    assert_eq!(w.call(linux::__NR_fcntl, &[2000, 1]), Ok(0), "stays open");
    assert_eq!(w.call(linux::__NR_dup, &[2000]), Err(Errno::EMFILE));
}

#[test]
fn duplicates_share_the_position_and_opens_do_not() {
    let mut w = world();
    let (a, b) = (open(&mut w, 0), open(&mut w, 0));
    let c = w.call(linux::__NR_dup, &[a]).unwrap();
    assert_eq!(w.call(linux::__NR_read, &[a, DATA, 4]), Ok(4));
    assert_eq!(w.call(linux::__NR_lseek, &[c, 0, 1]), Ok(4));
    assert_eq!(w.call(linux::__NR_lseek, &[b, 0, 1]), Ok(0));
    assert_eq!(w.call(linux::__NR_pread64, &[a, DATA, 3, 7]), Ok(3));
    assert_eq!(w.data(3), b"789");
    assert_eq!(w.call(linux::__NR_lseek, &[a, 0, 1]), Ok(4));
    assert_eq!(
        w.call(linux::__NR_lseek, &[a, -11i64 as u64, 2]),
        Err(Errno::EINVAL)
    );
    assert_eq!(w.call(linux::__NR_lseek, &[a, 2, 2]), Ok(12));
    assert_eq!(w.call(linux::__NR_read, &[a, DATA, 4]), Ok(0));
}

#[test]
fn access_modes_count() {
    let mut w = world();
    let r = open(&mut w, linux::O_RDONLY);
    let a = open(&mut w, linux::O_WRONLY | linux::O_APPEND);
    let p = open(&mut w, linux::O_PATH);
    assert_eq!(w.call(linux::__NR_write, &[r, DATA, 1]), Err(Errno::EBADF));
    assert_eq!(w.call(linux::__NR_read, &[a, DATA, 1]), Err(Errno::EBADF));
    assert_eq!(w.call(linux::__NR_read, &[p, DATA, 1]), Err(Errno::EBADF));
    assert_eq!(w.call(linux::__NR_fstat, &[p, DATA]), Ok(0));
    w.fake.poke(PROGRAM, DATA, b"ab");
    assert_eq!(w.call(linux::__NR_write, &[a, DATA, 2]), Ok(2));
    assert_eq!(w.call(linux::__NR_lseek, &[a, 0, 1]), Ok(12));
    assert_eq!(w.call(linux::__NR_lseek, &[r, 10, 0]), Ok(10));
    assert_eq!(w.call(linux::__NR_read, &[r, DATA, 9]), Ok(2));
    assert_eq!(w.data(2), b"ab");
    let t = open(&mut w, linux::O_RDWR | linux::O_TRUNC);
    assert_eq!(w.call(linux::__NR_read, &[t, DATA, 9]), Ok(0));
}

#[test]
fn record_locks_conflict_split_and_go_with_a_close() {
    let mut w = world();
    let ids = crate::context::Ids::default();
    w.add_process(OTHER, 2, ids);
    let mine = open(&mut w, linux::O_RDWR);
    w.fake.poke(OTHER, PATHS, b"/f\0");
    let open_flags = u64::from(linux::O_RDWR);
    let theirs = w
        .call_as(OTHER, linux::__NR_open, &[PATHS, open_flags])
        .unwrap();
    let lock = |w: &mut World, who, kind: u32, start: u64, len: u64| {
        w.fake.poke(who, DATA, &u64::from(kind).to_le_bytes());
        w.fake.poke(who, DATA + 8, &start.to_le_bytes());
        w.fake.poke(who, DATA + 16, &len.to_le_bytes());
    };
    let set = u64::from(linux::F_SETLK);
    let wait = u64::from(linux::F_SETLKW);
    lock(&mut w, PROGRAM, linux::F_WRLCK, 0, 100);
    assert_eq!(w.call(linux::__NR_fcntl, &[mine, set, DATA]), Ok(0));
    lock(&mut w, OTHER, linux::F_RDLCK, 50, 10);
    let fcntl = linux::__NR_fcntl;
    assert_eq!(
        w.call_as(OTHER, fcntl, &[theirs, set, DATA]),
        Err(Errno::EAGAIN)
    );
    assert_eq!(w.start(OTHER, fcntl, [theirs, wait, DATA, 0, 0, 0]), None);
    lock(&mut w, PROGRAM, linux::F_UNLCK, 40, 30);
    assert_eq!(w.call(fcntl, &[mine, set, DATA]), Ok(0));
    assert_eq!(w.reply_of(OTHER), Some(Ok(0)), "the waiter got the hole");
    lock(&mut w, OTHER, linux::F_WRLCK, 0, 0);
    assert_eq!(
        w.call_as(OTHER, fcntl, &[theirs, set, DATA]),
        Err(Errno::EAGAIN)
    );
    w.call(linux::__NR_close, &[mine]).unwrap();
    assert_eq!(w.call_as(OTHER, fcntl, &[theirs, set, DATA]), Ok(0));
}

#[test]
fn a_table_is_charged_as_it_grows_and_given_back() {
    let mut w = world();
    let account = w.vfs.base.accounts.work.clone();
    open(&mut w, 0);
    let of_one = account.used();
    assert!(of_one > 0);
    account.set_limits(Limits::of_machine(101 * of_one));
    assert_eq!(w.call(linux::__NR_dup2, &[0, 100]), Ok(100));
    assert_eq!(account.used(), 101 * of_one);
    assert_eq!(w.call(linux::__NR_dup2, &[0, 101]), Err(Errno::ENOMEM));
    let fork = |w: &mut World| {
        let fork = Fork {
            parent: PROGRAM,
            child: OTHER,
            pid: 2,
            share_files: false,
            share_fs: false,
        };
        w.deliver(Endpoint::PM, Class::Call, fork.encode());
        w.reply_of(Endpoint::PM)
    };
    assert_eq!(fork(&mut w), Some(Err(Errno::ENOMEM)));
    // A child's table ends with the last descriptor that is open.
    w.call(linux::__NR_close, &[100]).unwrap();
    account.set_limits(Limits::of_machine(102 * of_one));
    assert_eq!(fork(&mut w), Some(Ok(0)));
    assert_eq!(account.used(), 102 * of_one);
    w.deliver(Endpoint::PM, Class::Call, Exit { who: OTHER }.encode());
    assert_eq!(account.used(), 101 * of_one);
}
