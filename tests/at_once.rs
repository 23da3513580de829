//! A machine starts at once, whatever memory and root it is given: caches that grow as they are used and make room again
//! (`guest/cache.c`), images that stay as they are, and images of directories that are kept.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Platform, Root, Run, host_tool};

const CACHED: &str = "\
all of it is cached
a program has more than was free
both are what they were
all of it is cached again
";

/// In a machine of so many MiB a file is cached that takes most of it, and programs get that memory.
fn cached(platform: Platform, sizes: &[(u64, &str, &str)]) {
    platform.require();
    for &(memory, file, program) in sizes {
        let image = Root::new().program("cache").image(96, 4096);
        let mut run = Run::new(&["/bin/cache", file, program]);
        run.memory = memory << 20;
        let finished = run.guest(platform, image.disk());
        let said = finished.text();
        assert_eq!(said, CACHED, "{memory} MiB: {}", finished.circumstances());
        image.check();
    }
}

#[test]
fn a_cache_grows_into_free_memory_and_makes_room() {
    cached(Platform::Kvm, &[(24, "6", "6"), (64, "40", "40")]);
}

#[test]
fn a_cache_grows_into_free_memory_and_makes_room_under_qemu() {
    cached(Platform::Qemu, &[(64, "40", "40")]);
}

/// Boot and run of a small program, with much memory and little: the trace has as many records. Where a server or the kernel did
/// more the larger its machine is, it would have more; what touches more memory is seen by `vmm/tests/footprint.rs`.
#[test]
fn a_boot_is_the_same_work_whatever_memory_there_is() {
    Platform::Kvm.require();
    let records = |memory: &str| -> u64 {
        let output = Command::new(env!("CARGO_BIN_EXE_absentia"))
            .args(["run", "--accel", "kvm", "--deterministic", "--verbose"])
            .args(["--mem", memory, "--", "/bin/busybox", "true"])
            .output()
            .expect("absentia");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let trace = said.lines().find_map(|line| line.split_once("trace: "));
        let count = trace.and_then(|(_, trace)| trace.split(' ').next()?.parse().ok());
        count.unwrap_or_else(|| panic!("no trace: {said}"))
    };
    let least = records("16M");
    assert!(least > 500, "{least}");
    for memory in ["128M", "3G", "4G", "16G", "64G"] {
        assert_eq!(records(memory), least, "--mem {memory}");
    }
}

/// A run of the command on a root: what it said, after it succeeded.
fn on_root(platform: Platform, words: &[&str], root: &Path, cache: &Path, script: &str) -> String {
    let accel = match platform {
        Platform::Qemu => "qemu",
        _ => "kvm",
    };
    let output = Command::new(env!("CARGO_BIN_EXE_absentia"))
        .args(["run", "--timeout", "60", "--accel", accel])
        .args(words)
        .arg("--root")
        .arg(root)
        .args(["--", "/bin/busybox", "sh", "-c", script])
        .env("XDG_CACHE_HOME", cache)
        .output()
        .expect("absentia");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

const CHANGE: &str = "cat /work/f; dd if=/dev/zero of=/work/large bs=64k count=64 2>&-; echo new > /work/f; \
                      sync; echo 3 > /proc/sys/vm/drop_caches; cat /work/f; ls /work";
const CHANGED: &str = "old\nnew\nf\nlarge\n";

fn snapshot(platform: Platform) {
    platform.require();
    let image = Root::new()
        .busybox()
        .file("/work/f", b"old\n")
        .image(24, 1024);
    let path = image.file.path();
    // Whoever may only read it can use it, too.
    fs::set_permissions(path, fs::Permissions::from_mode(0o444)).expect("permissions");
    let before = fs::read(path).expect("the image");
    let nowhere = Path::new("/proc/nowhere");
    for _ in 0..2 {
        let said = on_root(platform, &["--snapshot"], path, nowhere, CHANGE);
        assert_eq!(said, CHANGED);
    }
    assert!(
        fs::read(path).expect("the image") == before,
        "it was changed"
    );
    image.check();
}

#[test]
fn a_snapshot_leaves_the_image_as_it_was() {
    snapshot(Platform::Kvm);
}

#[test]
fn a_snapshot_leaves_the_image_as_it_was_under_qemu() {
    snapshot(Platform::Qemu);
}

/// The images that are kept: path, inode and time of modification of each.
fn kept(cache: &Path) -> Vec<(PathBuf, u64)> {
    let Ok(entries) = fs::read_dir(cache.join("absentia/roots")) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut kept: Vec<_> = paths
        .map(|path| {
            let inode = path.metadata().expect("metadata").ino();
            (path, inode)
        })
        .collect();
    kept.sort();
    kept
}

#[test]
fn the_image_of_a_directory_is_kept_until_that_changes() {
    for platform in [Platform::Kvm, Platform::Qemu] {
        platform.require();
        let root = Root::new().busybox().file("/work/f", b"old\n");
        let directory = root.path("/");
        let cache = tempfile::tempdir().expect("directory");
        let run = |script| on_root(platform, &[], &directory, cache.path(), script);
        assert_eq!(run(CHANGE), CHANGED);
        let first = kept(cache.path());
        assert_eq!(first.len(), 1);
        // The same image, in which nothing has changed.
        assert_eq!(run(CHANGE), CHANGED);
        assert_eq!(kept(cache.path()), first);
        let (code, said) = host_tool("e2fsck", &["-fn".as_ref(), first[0].0.as_os_str()]);
        assert_eq!(code, 0, "e2fsck: {said}");
        fs::write(root.path("/work/f"), "now\n").expect("file");
        assert_eq!(run("cat /work/f"), "now\n");
        assert_eq!(kept(cache.path()).len(), 2);
        // It is the image that runs: what is not in it is not there.
        fs::write(root.path("/work/f"), "two\n").expect("file");
        assert_eq!(run("cat /work/f"), "two\n");
        let images = kept(cache.path());
        let newest = images
            .iter()
            .max_by_key(|(path, _)| path.metadata().and_then(|m| m.modified()).ok());
        let newest = newest.expect("an image").0.as_os_str();
        let write = ["-w".as_ref(), "-R".as_ref(), "rm /work/f".as_ref(), newest];
        host_tool("debugfs", &write);
        assert_eq!(run("ls /work"), "");
        // A place that cannot be written only costs time.
        let said = on_root(
            platform,
            &[],
            &directory,
            Path::new("/proc/nowhere"),
            "cat /work/f",
        );
        assert_eq!(said, "two\n");
    }
}
