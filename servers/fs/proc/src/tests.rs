mod world;

use crate::files::Proc;
use crate::tree::{GLOBAL, Global, Inode, Item, OfProcess, ROOT, decimal};
use crate::{global, process};
use abi::fs::{SetAttributes, SetMask};
use abi::{Endpoint, Errno};
use rt::fsserver::{Dirents, FileSystem};
use std::string::String;
use std::vec;
use std::vec::Vec;
use world::{DUMPABLE, IMAGE, SHELL, STRANGER, Two};

fn text(bytes: Result<Vec<u8>, Errno>) -> String {
    String::from_utf8(bytes.unwrap()).unwrap()
}

/// The text of a global file by its path.
fn global_text(path: &str) -> String {
    let mut dir = 0;
    for name in path.split('/') {
        let is = |e: &(usize, &str, _)| e.0 == dir && e.1 == name;
        dir = GLOBAL.iter().position(is).unwrap();
    }
    text(global::text(&Two, &[0; 16], GLOBAL[dir].2, SHELL))
}

fn walk(files: &mut Proc<Two>, path: &str) -> Result<u64, Errno> {
    let mut ino = ROOT;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        ino = files.lookup(ino, name.as_bytes(), SHELL)?.ino;
    }
    Ok(ino)
}

fn link(files: &mut Proc<Two>, path: &str) -> Result<String, Errno> {
    let ino = walk(files, path)?;
    let mut buffer = [0; 100];
    let len = files.readlink(ino, &mut buffer, SHELL)?;
    Ok(String::from_utf8(buffer[..len].to_vec()).unwrap())
}

/// All names of a directory, read through a buffer that holds few.
fn names(files: &mut Proc<Two>, path: &str) -> Vec<String> {
    let ino = walk(files, path).unwrap();
    let (mut names, mut position) = (Vec::new(), 0);
    loop {
        let mut dirents = Dirents::new(80);
        position = files.getdents(ino, position, &mut dirents, SHELL).unwrap();
        let mut bytes = dirents.finish().unwrap();
        if bytes.is_empty() {
            return names;
        }
        while !bytes.is_empty() {
            let len = usize::from(bytes[16]) | usize::from(bytes[17]) << 8;
            let name = bytes[19..len].split(|&b| b == 0).next().unwrap();
            names.push(String::from_utf8(name.to_vec()).unwrap());
            bytes = &bytes[len..];
        }
    }
}

#[test]
fn inode_numbers_come_apart_again() {
    for index in 0..GLOBAL.len() {
        let inode = Inode::Global(index);
        assert_eq!(Inode::from_number(inode.number()), Some(inode));
    }
    for task in [false, true] {
        let of = OfProcess {
            pid: 32768,
            item: Item::Tasks,
            task,
            fd: 1023,
            image: 0,
        };
        let inode = Inode::Process(of);
        assert_eq!(Inode::from_number(inode.number()), Some(inode));
    }
    for bad in [0, GLOBAL.len() as u64 + 1, 1 << 32, 1 << 32 | 200 << 24] {
        assert_eq!(Inode::from_number(bad), None);
    }
    assert_eq!((decimal(b"10"), decimal(b"0")), (Some(10), Some(0)));
    for bad in [&b""[..], b"01", b"+1", b"1x", b"99999999999"] {
        assert_eq!(decimal(bad), None);
    }
}

#[test]
fn global_entries_are_in_directories_that_stand_before_them() {
    for (i, (dir, name, _)) in GLOBAL.iter().enumerate() {
        assert!(*dir < i || i == 0);
        assert_eq!(GLOBAL[*dir].2, Global::Directory);
        assert_eq!(
            GLOBAL
                .iter()
                .filter(|e| (e.0, e.1) == (*dir, *name))
                .count(),
            1
        );
    }
}

#[test]
fn stat_has_linuxs_fields() {
    let stat = text(process::stat(&Two, 2, Endpoint::new(1, 1)));
    assert!(
        stat.starts_with("2 (a long) name) S 1 2 2 1281 2 0 "),
        "{stat}"
    );
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    // The fields after the name; the first is number 3.
    let field = |number: usize| fields[number - 3];
    assert_eq!(fields.len(), 50);
    assert_eq!((field(14), field(15)), ("123", "0"));
    assert_eq!(
        (field(20), field(22), field(23), field(24)),
        ("1", "5", "40960", "2")
    );
    assert_eq!((field(26), field(28)), ("4194304", "140733193400320"));
    assert_eq!((field(32), field(34), field(38)), ("8192", "2", "17"));
    assert_eq!((field(47), field(48), field(52)), ("6291456", "4090", "0"));
    let zombie = text(process::stat(&Two, 300, SHELL));
    assert!(zombie.contains(" Z 1 2 2 "));
}

#[test]
fn status_statm_and_maps() {
    let status = text(process::status(&Two, 2, Endpoint::new(1, 1)));
    for line in [
        "Name:\ta long) name\n",
        "State:\tS (sleeping)\n",
        "Umask:\t0027\n",
        "Uid:\t1000\t1000\t1000\t1001\n",
        "Gid:\t100\t100\t100\t101\n",
        "FDSize:\t256\n",
        "Groups:\t100 27 \n",
        "CapInh:\t0000000000000002\nCapPrm:\t0000000000000003\nCapEff:\t0000000000000001\n",
        "NoNewPrivs:\t1\n",
        "VmSize:\t      40 kB\n",
        "VmStk:\t      12 kB\n",
        "SigCgt:\t0000000000000002\n",
    ] {
        assert!(status.contains(line), "{line}{status}");
    }
    assert!(!text(process::status(&Two, 300, SHELL)).contains("VmSize"));
    assert_eq!(text(process::statm(&Two, 2)), "10 2 1 1 0 5 0\n");
    let expected = [
        "00400000-00401000 r-xp 00001000 08:01 12                                 /bin/busybox",
        "00600000-00602000 rw-p 00000000 00:00 0                                  [heap]",
        "7fff00000000-7fff00003000 rw-p 00000000 00:00 0                          [stack]",
    ];
    let maps = text(process::maps(&Two, 2));
    assert_eq!(maps.lines().collect::<Vec<_>>(), expected);
    assert_eq!(text(process::maps(&Two, 300)), "");
}

#[test]
fn argument_strings_end_where_memory_does() {
    assert_eq!(
        text(process::strings(&Two, 2, process::Strings::Arguments)),
        "x".repeat(10)
    );
    assert_eq!(
        text(process::strings(&Two, 2, process::Strings::Environment)),
        "x".repeat(8192 - 4100)
    );
    assert_eq!(
        text(process::strings(&Two, 300, process::Strings::Arguments)),
        ""
    );
}

#[test]
fn global_texts() {
    let meminfo = global_text("meminfo");
    assert!(meminfo.starts_with("MemTotal:          65536 kB\nMemFree:           32768 kB\n"));
    assert!(meminfo.contains("\nCached:             8192 kB\n"));
    assert_eq!(global_text("uptime"), "3.45 1.00\n");
    assert_eq!(global_text("loadavg"), "0.00 0.00 0.00 1/2 300\n");
    assert!(global_text("stat").starts_with("cpu  245 0 0 100 0 0 0 0 0 0\ncpu0 245 "));
    assert!(global_text("stat").contains("\nbtime 1700000000\nprocesses 7\n"));
    assert!(global_text("version").starts_with("Linux version 6."));
    assert_eq!(global_text("cmdline"), "quiet\n");
    let uuid = "ffffffff-ffff-4fff-bfff-ffffffffffff\n";
    assert_eq!(global_text("sys/kernel/random/uuid"), uuid);
    assert_eq!(global_text("sys/kernel/ostype"), "Linux\n");
    let counters = global_text("absentia/counters");
    assert!(counters.contains("vfs.pipes 0\n") && counters.contains("vm.used_frames 6144\n"));
    assert!(counters.lines().all(|line| line.split(' ').count() == 2));
    let cpuinfo = global_text("cpuinfo");
    assert!(
        cpuinfo.contains("cpu MHz\t\t: 2100.000\n") && cpuinfo.contains(" sse2 "),
        "{cpuinfo}"
    );
}

#[test]
fn names_lead_where_they_say() {
    let files = &mut Proc::new(Two);
    assert_eq!(link(files, "self").unwrap(), "2");
    assert_eq!(link(files, "thread-self").unwrap(), "2/task/2");
    assert_eq!(link(files, "mounts").unwrap(), "self/mounts");
    assert_eq!(link(files, "2/exe").unwrap(), "/bin/busybox");
    assert_eq!(link(files, "2/fd/5").unwrap(), "pipe:[7]");
    assert_eq!(link(files, "2/task/2/exe").unwrap(), "/bin/busybox");
    assert_eq!(link(files, "2/cwd"), Err(Errno::ENOENT));
    assert_eq!(link(files, "2/fd/4"), Err(Errno::ENOENT));
    // The permissions say how the file is open.
    for (path, mode) in [("2/fd/5", 0o120300), ("2/fd/0", 0o120700)] {
        let ino = walk(files, path).unwrap();
        assert_eq!(files.attributes(ino, SHELL).unwrap().mode, mode, "{path}");
    }
    assert_eq!(walk(files, "3"), Err(Errno::ENOENT));
    assert_eq!(walk(files, "2/task/3"), Err(Errno::ENOENT));
    assert_eq!(walk(files, "2/task/2/task"), Err(Errno::ENOENT));
    assert_eq!(walk(files, "2/stat/x"), Err(Errno::ENOTDIR));
    for path in ["sys/kernel/random", "2/fd", "2/task", "2/task/2"] {
        let (up, _) = path.rsplit_once('/').unwrap();
        let dotted = walk(files, &(String::from(path) + "/..")).unwrap();
        assert_eq!(dotted, walk(files, up).unwrap(), "{path}");
    }
    let shell = files.lookup(ROOT, b"2", SHELL).unwrap();
    assert_eq!((shell.mode, shell.uid, shell.gid), (0o040555, 1000, 100));
}

#[test]
fn directories_list_what_can_be_looked_up() {
    let files = &mut Proc::new(Two);
    assert_eq!(names(files, "2/fd"), [".", "..", "0", "5"]);
    assert_eq!(names(files, "2/task"), [".", "..", "2"]);
    assert_eq!(names(files, "sys"), [".", "..", "kernel", "vm", "fs"]);
    let root = names(files, "");
    assert_eq!(root[root.len() - 2..], ["2", "300"]);
    for dir in ["", "2", "2/task/2", "2/fdinfo", "sys/kernel/random"] {
        for name in names(files, dir) {
            walk(files, &(String::from(dir) + "/" + &name)).unwrap();
        }
    }
    assert_eq!(names(files, "2/task/2").len() + 1, names(files, "2").len());
    let ino = walk(files, "2/stat").unwrap();
    let result = files.getdents(ino, 0, &mut Dirents::new(100), SHELL);
    assert_eq!(result, Err(Errno::ENOTDIR));
}

#[test]
fn a_reader_keeps_its_text_until_it_is_done() {
    let mut kept = crate::snapshots::Snapshots::default();
    let other = Endpoint::new(21, 0);
    kept.keep(1, SHELL, vec![1].into());
    kept.keep(1, other, vec![2].into());
    assert_eq!(kept.get(1, SHELL).as_deref(), Some(&vec![1]));
    kept.forget(1, SHELL);
    assert_eq!(kept.get(1, SHELL), None);
    for ino in 0..1000 {
        kept.keep(ino, SHELL, vec![0; 100_000].into());
    }
    assert_eq!(kept.get(1, other), None);
    assert!(kept.get(999, SHELL).is_some());
}

#[test]
fn the_owners_of_frames_add_up() {
    let text = global::text(&Two, &[0; 16], Global::Frames, SHELL).unwrap();
    let text = String::from_utf8(text).unwrap();
    let mut owners = text.lines().map(|line| line.split_once(' ').unwrap());
    let number = |text: &str| text.parse::<u64>().unwrap();
    let (last, total) = owners.next_back().unwrap();
    assert_eq!((last, owners.clone().count()), ("total", 7));
    assert_eq!(
        owners.map(|owner| number(owner.1)).sum::<u64>(),
        number(total)
    );
}

#[test]
fn only_drop_caches_is_written_to() {
    let files = &mut Proc::new(Two);
    for (text, asked) in [("1\n", 101), ("2", 102), (" 3 \n", 103)] {
        assert_eq!(
            global::drop_caches(&Two, text.as_bytes()),
            Err(Errno(asked))
        );
    }
    for text in ["", "0", "4", "-1", "1 2", "one"] {
        assert_eq!(
            global::drop_caches(&Two, text.as_bytes()),
            Err(Errno::EINVAL)
        );
    }
    let cut = SetAttributes {
        mask: SetMask::SIZE.bits(),
        ..SetAttributes::default()
    };
    let ino = walk(files, "sys/vm/drop_caches").unwrap();
    assert_eq!(files.set_attributes(ino, &cut).unwrap().mode, 0o100200);
    let ino = walk(files, "uptime").unwrap();
    assert_eq!(files.set_attributes(ino, &cut), Err(Errno::EROFS));
}

#[test]
fn work_is_counted_and_names_the_services() {
    let work = global_text("absentia/work");
    assert!(work.contains("kernel.interrupts 5\n"), "{work}");
    assert!(work.ends_with("cpu.vm 10\ncpu.rs 20\n"), "{work}");
}

#[test]
fn exec_is_controlled_by_files() {
    assert_eq!(global_text("absentia/exec-backend"), "copy\n");
    assert!(global_text("absentia/exec-trace").starts_with("lookup 5 "));
    let write = |what, text: &[u8]| global::write(&Two, what, text);
    let (backend, trace) = (Global::ExecBackend, Global::ExecTrace);
    assert_eq!(write(backend, b"map\n"), Ok(()));
    assert_eq!(write(backend, b"buffer"), Err(Errno::EBUSY));
    assert_eq!(write(backend, b"cache"), Err(Errno::EINVAL));
    assert_eq!(write(trace, b"1\n"), Ok(()));
    assert_eq!(write(trace, b"0"), Err(Errno::EBUSY));
    assert_eq!(write(trace, b""), Err(Errno::EINVAL));
    assert_eq!(write(Global::Version, b"1"), Err(Errno::EACCES));
}

#[test]
fn strangers_see_what_everybody_may_see() {
    let files = &mut Proc::new(Two);
    for name in ["maps", "environ", "auxv", "mem", "fdinfo"] {
        let ino = walk(files, &(String::from("2/") + name)).unwrap();
        assert_eq!(files.may_open(ino, SHELL), Ok(()), "{name}");
        assert_eq!(files.may_open(ino, STRANGER), Err(Errno::EACCES), "{name}");
    }
    for name in ["2/stat", "2/status", "2/cmdline", "uptime", "300/maps"] {
        let ino = walk(files, name).unwrap();
        assert_eq!(files.may_open(ino, STRANGER), Ok(()), "{name}");
    }
    for name in ["2/exe", "2/fd/5"] {
        let ino = walk(files, name).unwrap();
        let answer = files.readlink(ino, &mut [0; 64], STRANGER);
        assert_eq!(answer, Err(Errno::EACCES), "{name}");
    }
    // Where things lie is not told; that there is something is.
    let stat = text(process::stat(&Two, 2, STRANGER));
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split(' ').collect();
    assert_eq!(fields[24..27], ["1", "1", "0"]);
    assert_eq!(fields[46..50], ["0"; 4]);
    assert!(text(process::status(&Two, 2, STRANGER)).contains("\nSigQ:\t3/1024\n"));
}

#[test]
fn a_file_of_memory_shows_the_image_that_it_was_opened_for() {
    let files = &mut Proc::new(Two);
    let read = |files: &Proc<Two>, ino| files.shown(ino, SHELL).map(|text| text.len());
    let names = ["maps", "environ", "auxv"];
    let inos = names.map(|name| walk(files, &(String::from("2/") + name)).unwrap());
    assert!(inos.iter().all(|&ino| read(files, ino).unwrap() > 0));
    IMAGE.set(8);
    assert!(inos.iter().all(|&ino| read(files, ino) == Ok(0)));
    let again = names.map(|name| walk(files, &(String::from("2/") + name)).unwrap());
    assert!(again.iter().all(|&ino| read(files, ino).unwrap() > 0));
    // While a set-id program is put in place there is none.
    IMAGE.set(0);
    assert!(again.iter().all(|&ino| read(files, ino) == Ok(0)));
    IMAGE.set(7);
}

#[test]
fn what_nobody_may_look_at_is_roots() {
    let files = &mut Proc::new(Two);
    let owner = |files: &mut Proc<Two>, name: &str| {
        let ino = walk(files, name).unwrap();
        files
            .attributes(ino, SHELL)
            .map(|a| (a.uid, a.gid))
            .unwrap()
    };
    assert_eq!(owner(files, "2/maps"), (1000, 100));
    DUMPABLE.set(false);
    assert_eq!(owner(files, "2/maps"), (0, 0));
    assert_eq!(owner(files, "2/fd"), (0, 0));
    assert_eq!(owner(files, "2"), (1000, 100));
    assert_eq!(owner(files, "2/task"), (1000, 100));
    DUMPABLE.set(true);
}

#[test]
fn a_service_dies_by_name() {
    let write = |text: &[u8]| global::write(&Two, Global::Crash, text);
    assert_eq!(write(b"vm\n"), Err(Errno::EBUSY));
    assert_eq!(write(b"pm"), Ok(()));
    let files = &mut Proc::new(Two);
    let ino = walk(files, "absentia/crash").unwrap();
    assert_eq!(files.attributes(ino, SHELL).unwrap().mode, 0o100200);
}
