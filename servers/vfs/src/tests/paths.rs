use super::filesystem::MemoryFs;
use super::world::*;
use crate::context::Ids;
use abi::Errno;
use linux_raw_sys::general as linux;

const DIR: u32 = linux::S_IFDIR | 0o755;
const REG: u32 = linux::S_IFREG | 0o644;
const LNK: u32 = linux::S_IFLNK | 0o777;

fn world() -> World {
    let mut fs = MemoryFs::new();
    let a = fs.add(1, "a", DIR, b"");
    let b = fs.add(a, "b", DIR, b"");
    fs.add(b, "file", REG, b"hello");
    fs.add(1, "abs", LNK, b"/a/b");
    fs.add(a, "rel", LNK, b"../a/b/file");
    fs.add(1, "loop", LNK, b"loop");
    fs.add(1, "dangling", LNK, b"/a/made");
    fs.add(1, "private", linux::S_IFDIR | 0o700, b"");
    World::with(fs)
}

fn open(w: &mut World, path: &str, flags: u32) -> Result<u64, Errno> {
    let at = w.string(0, path);
    w.call(linux::__NR_open, &[at, u64::from(flags), 0o666])
}

fn read(w: &mut World, fd: u64) -> std::vec::Vec<u8> {
    let n = w.call(linux::__NR_read, &[fd, DATA, 100]).unwrap();
    w.data(n as usize)
}

#[test]
fn paths_lead_through_links_dots_and_slashes() {
    let mut w = world();
    for path in [
        "/a/b/file",
        "a/b/file",
        "//a//b///file",
        "/a/./b/../b/file",
        "/../../a/b/file",
        "/abs/file",
        "/a/rel",
        "/abs/../rel",
    ] {
        let fd = open(&mut w, path, linux::O_RDONLY).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(read(&mut w, fd), b"hello", "{path}");
        w.call(linux::__NR_close, &[fd]).unwrap();
    }
}

#[test]
fn bad_paths_get_linuxs_errors() {
    let mut w = world();
    for (path, flags, errno) in [
        ("", 0, Errno::ENOENT),
        ("/none", 0, Errno::ENOENT),
        ("/none/x", linux::O_CREAT, Errno::ENOENT),
        ("/a/b/file/x", 0, Errno::ENOTDIR),
        ("/a/b/file/", 0, Errno::ENOTDIR),
        ("/a/b/file/.", 0, Errno::ENOTDIR),
        ("/loop", 0, Errno::ELOOP),
        ("/abs", linux::O_NOFOLLOW, Errno::ELOOP),
        ("/a", linux::O_WRONLY, Errno::EISDIR),
        ("/a", linux::O_CREAT, Errno::EISDIR),
        ("/new/", linux::O_CREAT, Errno::EISDIR),
        ("/a/b/file", linux::O_DIRECTORY, Errno::ENOTDIR),
        ("/a/b/file", linux::O_CREAT | linux::O_EXCL, Errno::EEXIST),
        ("/dangling", linux::O_CREAT | linux::O_EXCL, Errno::EEXIST),
        ("/dangling", 0, Errno::ENOENT),
    ] {
        assert_eq!(open(&mut w, path, flags), Err(errno), "{path}");
    }
    let long = std::format!("/{}", "x".repeat(256));
    assert_eq!(open(&mut w, &long, 0), Err(Errno::ENAMETOOLONG));
}

#[test]
fn changing_names_never_follows_the_last_link() {
    let mut w = world();
    let (link, other) = (w.string(0, "/abs/"), w.string(1, "/other"));
    for (number, args, errno) in [
        (linux::__NR_rmdir, [link, 0], Errno::ENOTDIR),
        (linux::__NR_unlink, [link, 0], Errno::ENOTDIR),
        (linux::__NR_rename, [link, other], Errno::ENOTDIR),
        (linux::__NR_mkdir, [link, 0o755], Errno::EEXIST),
        (linux::__NR_symlink, [other, link], Errno::EEXIST),
    ] {
        assert_eq!(w.call(number, &args), Err(errno), "call {number}");
    }
    let file = w.string(0, "/a/b/file/");
    assert_eq!(w.call(linux::__NR_unlink, &[file]), Err(Errno::ENOTDIR));
    open(&mut w, "/abs/file", linux::O_RDONLY).unwrap();
}

#[test]
fn a_dangling_link_is_created_through() {
    let mut w = world();
    let fd = open(&mut w, "/dangling", linux::O_CREAT | linux::O_WRONLY).unwrap();
    assert_eq!(w.call(linux::__NR_write, &[fd, DATA, 3]), Ok(3));
    open(&mut w, "/a/made", linux::O_RDONLY).unwrap();
}

#[test]
fn directories_know_where_they_are_after_a_rename() {
    let mut w = world();
    let at = w.string(0, "/a/b");
    w.call(linux::__NR_chdir, &[at]).unwrap();
    let (old, new) = (w.string(0, "/a"), w.string(1, "/z"));
    w.call(linux::__NR_rename, &[old, new]).unwrap();
    let n = w.call(linux::__NR_getcwd, &[DATA, 100]).unwrap();
    assert_eq!(w.data(n as usize), b"/z/b\0");
    assert_eq!(w.call(linux::__NR_getcwd, &[DATA, 4]), Err(Errno::ERANGE));
    let fd = open(&mut w, "../b/file", linux::O_RDONLY).unwrap();
    assert_eq!(read(&mut w, fd), b"hello");
    let (old, new) = (w.string(0, "/z"), w.string(1, "/z/b/x"));
    assert_eq!(w.call(linux::__NR_rename, &[old, new]), Err(Errno::EINVAL));
}

#[test]
fn permissions_are_checked_with_the_right_ids() {
    let mut w = world();
    w.add_process(OTHER, 2, Ids::of(5, 5));
    let other = |w: &mut World, path: &str, flags: u32| {
        w.fake.poke(OTHER, PATHS, path.as_bytes());
        w.fake.poke(OTHER, PATHS + path.len() as u64, &[0]);
        w.call_as(OTHER, linux::__NR_open, &[PATHS, u64::from(flags), 0o666])
    };
    assert_eq!(other(&mut w, "/private/x", 0), Err(Errno::EACCES));
    assert_eq!(
        other(&mut w, "/a/b/file", linux::O_RDWR),
        Err(Errno::EACCES)
    );
    assert!(other(&mut w, "/a/b/file", linux::O_RDONLY).is_ok());
    assert_eq!(other(&mut w, "/new", linux::O_CREAT), Err(Errno::EACCES));
    assert!(open(&mut w, "/new", linux::O_CREAT).is_ok());
    w.fake.poke(OTHER, PATHS, b"/new\0");
    let unlink = w.call_as(OTHER, linux::__NR_unlink, &[PATHS]);
    assert_eq!(unlink, Err(Errno::EACCES));
}

#[test]
fn umask_and_exclusive_creation() {
    let mut w = world();
    open(&mut w, "/n", linux::O_CREAT | linux::O_EXCL).unwrap();
    let ino = w.fs.inode(1).names[&b"n"[..]];
    assert_eq!(w.fs.inode(ino).mode & 0o7777, 0o644);
}
