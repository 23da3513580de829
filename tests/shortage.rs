//! Memory runs out, the machine goes on: `guest/shortage.c` and `guest/burst.c`.

mod common;

use common::{Platform, Root, Run};

const EXPECTED: &str = "\
innocent exited, hog killed, holder lives
innocent exited, hog killed, holder lives
innocent exited, hog killed, holder lives
innocent exited, protected lives, offered killed
Permission denied, Invalid argument, Success
2 7
";

fn shortage(platform: Platform) {
    platform.require();
    let root = Root::new().program("shortage");
    let finished = Run::new(&["/bin/shortage"]).guest(platform, root.disk());
    let said = finished.text();
    assert_eq!(said, EXPECTED, "{}", finished.circumstances());
    assert_eq!(finished.code, 0);
}

#[test]
fn who_took_all_ends_and_nobody_else() {
    shortage(Platform::Kvm);
}

#[test]
fn who_took_all_ends_and_nobody_else_under_qemu() {
    shortage(Platform::Qemu);
}

/// After pipes have held 100 MiB, free memory is within 1 MiB of what it was.
fn burst(platform: Platform) {
    platform.require();
    let root = Root::new().program("burst");
    let mut run = Run::new(&["/bin/burst"]);
    run.memory = 1 << 30;
    let finished = run.guest(platform, root.disk());
    let said = finished.text();
    assert_eq!(
        said,
        "100 MiB held, all back\n".repeat(2),
        "{}",
        finished.circumstances()
    );
}

#[test]
fn what_a_burst_of_pipes_took_comes_back() {
    burst(Platform::Kvm);
}

#[test]
fn what_a_burst_of_pipes_took_comes_back_under_qemu() {
    burst(Platform::Qemu);
}
