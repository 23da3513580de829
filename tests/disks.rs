//! What programs write is on the disk, and disks that are full or damaged give errors.

mod common;

use common::{Platform, Root, Run};
use std::os::unix::fs::FileExt;

fn large_file(platform: Platform, block_size: u32) {
    platform.require();
    let root = Root::new().program("disk");
    let image = root.image(48, block_size);
    let run = Run::new(&["/bin/disk", "write", "big", "20"]);
    run.guest(platform, image.disk()).must_exit(0);
    image.check();
    run.host(&root).must_exit(0);
    let expected = std::fs::read(root.path("/work/big")).expect("the host's file");
    assert!(
        image.read("/work/big") == expected,
        "the file differs on the disk"
    );
}

#[test]
fn a_large_file_reaches_the_disk() {
    large_file(Platform::Kvm, 4096);
}

#[test]
fn a_large_file_in_small_blocks() {
    large_file(Platform::Kvm, 1024);
}

#[test]
fn a_large_file_under_qemu() {
    large_file(Platform::Qemu, 1024);
}

#[test]
fn a_full_disk_is_an_error_and_recovers() {
    Platform::Kvm.require();
    for block_size in [1024, 4096] {
        let image = Root::new().program("disk").image(16, block_size);
        let finished = Run::new(&["/bin/disk", "fill", "/work"]).guest(Platform::Kvm, image.disk());
        finished.must_exit(0);
        let text = finished.text();
        assert_eq!(text.matches("Some(28)").count(), 4, "{text}");
        assert!(text.ends_with("space came back\n"), "{text}");
        image.check();
    }
}

#[test]
fn many_small_files_leave_a_clean_disk() {
    Platform::Kvm.require();
    for block_size in [1024, 4096] {
        let image = Root::new().program("disk").image(32, block_size);
        let run = Run::new(&["/bin/disk", "churn", "/work"]);
        run.guest(Platform::Kvm, image.disk()).must_exit(0);
        image.check();
    }
}

/// Damage that leaves the superblock's magic number alone, in many places: whatever
/// happens, the machine ends by itself.
#[test]
fn a_damaged_disk_is_no_hang() {
    Platform::Kvm.require();
    let root = Root::new().busybox().program("disk");
    let script = "ls -R /work /bin > /dev/null; echo x > /work/x; cat /work/* > /dev/null; \
                  mkdir /work/d; rm -r /work/d; /bin/disk churn /work; sync; exit 0";
    for (seed, (from, to)) in [
        // Superblock's figures, group descriptors, bitmaps and inode tables, directories.
        (1024, 1024 + 56),
        (1024 + 88, 2048),
        (4096, 8192),
        (8192, 64 << 10),
        (64 << 10, 1 << 20),
        (0x1000, 12 << 20),
    ]
    .into_iter()
    .enumerate()
    {
        let image = root.image(16, 4096);
        let mut state = seed as u64 * 2 + 1;
        let mut random = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for _ in 0..((to - from) / 8).clamp(8, 2000) {
            let at = from + random() % (to - from);
            let file = image.file.as_file();
            file.write_all_at(&[random() as u8], at).expect("damage");
        }
        // What damage makes another kind of file system of is refused before there is a guest.
        let Ok(disk) = absentia_vmm::root::open(image.file.path(), false) else {
            continue;
        };
        let run = Run::new(&["/bin/busybox", "sh", "-c", script]).timeout(60);
        let finished = run.guest(Platform::Kvm, disk);
        assert!(
            !finished.timed_out(),
            "damage {from}..{to}: {}",
            finished.circumstances()
        );
    }
}

#[test]
fn what_is_written_to_a_shared_mapping_reaches_the_disk() {
    Platform::Kvm.require();
    for block_size in [1024, 4096] {
        let image = Root::new().program("shared").image(16, block_size);
        let run = Run::new(&["/bin/shared"]);
        run.guest(Platform::Kvm, image.disk()).must_exit(0);
        image.check();
        let mut expected = vec![b'o'; 10 * 4096];
        expected.resize(20 * 4096 + 100, 0);
        for at in (4096..20 * 4096).step_by(2 * 4096) {
            expected[at..at + 100].fill(b'n');
        }
        expected[20 * 4096 + 99] = b'z';
        for file in ["munmap", "fsync", "exit"] {
            let found = image.read(&format!("/work/{file}"));
            assert!(found == expected, "{file} in blocks of {block_size}");
        }
        expected[0] = b'y';
        assert!(image.read("/work/msync") == expected, "msync");
    }
}
