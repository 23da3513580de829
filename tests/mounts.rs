//! mount(2) and umount2(2): `tests/guest/mounts.c`, which does the same on Linux in a mount
//! namespace of its own, and busybox's tools.

mod common;

use common::{Platform, Root, Run};

fn calls(platform: Platform) {
    platform.require();
    let root = Root::new().program("mounts");
    let mut run = Run::new(&["/bin/mounts"]);
    run.sanity = true;
    let finished = run.guest(platform, root.disk());
    assert_eq!(
        finished.text(),
        "mounts ok\n",
        "{}",
        finished.circumstances()
    );
    finished.must_exit(0);
}

#[test]
fn calls_are_linux_s_under_kvm() {
    calls(Platform::Kvm);
}

#[test]
fn calls_are_linux_s_under_qemu() {
    calls(Platform::Qemu);
}

/// What a user types, and what it says.
const SCRIPT: &str = r#"
mkdir m
mount -t tmpfs -o size=1m,nosuid,nodev scratch m
mount | grep /work/m
df -k m | tail -n 1 | tr -s ' '
echo text > m/file
cd m; umount /work/m; echo "busy $?"; cd ..
mount -o remount,ro m
echo more > m/file; echo "read-only $?"
grep ' /work/m ' /proc/self/mountinfo | cut -d ' ' -f 4-
umount m; echo "unmounted $?"
ls m
mount -t proc proc m && head -c 3 m/self/comm && umount m
mount -t ext9 none m; echo "unknown $?"
mount -o remount,ro / && echo x > here; echo "root $?"
mount -o remount,rw / && echo x > here && cat here
mount | head -n 1
"#;

const SAID: &str = "\
scratch on /work/m type tmpfs (rw,nosuid,nodev,relatime,size=1m)
scratch 1024 0 1024 0% /work/m
umount: can't unmount /work/m: Device or resource busy
busy 1
sh: can't create m/file: Read-only file system
read-only 1
/ /work/m ro,nosuid,nodev,relatime - tmpfs scratch ro,size=1m
unmounted 0
heamount: mounting none on m failed: No such device
unknown 255
sh: can't create here: Read-only file system
root 1
x
/dev/vda on / type ext2 (rw,relatime)
";

#[test]
fn busybox_mounts_and_says_what_is_mounted() {
    Platform::Kvm.require();
    let root = Root::new().busybox();
    let script = format!("exec 2>&1\n{SCRIPT}");
    let finished =
        Run::new(&["/bin/busybox", "sh", "-c", &script]).guest(Platform::Kvm, root.disk());
    assert_eq!(finished.text(), SAID, "{}", finished.circumstances());
}
