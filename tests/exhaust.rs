//! A user tries every way to make servers keep memory (`guest/exhaust.c`, `guest/ways.h`), alone, beside a
//! process that took all memory, and where memory itself refuses.

mod common;

use common::{Platform, Root, Run};

/// The ways that the program knows, as its source lists them.
fn ways() -> Vec<&'static str> {
    let source = include_str!("guest/ways.h");
    let table = source.split("} ways[] = {").nth(1).expect("the table");
    let names: Vec<_> = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("{ \"")?.split('"').next())
        .collect();
    assert!(names.len() > 40, "{names:?}");
    names
}

/// The least memory that a machine has, in KiB.
const LEAST: u64 = 16 << 10;

/// `ways` in one mode: each is refused as on Linux, root works while the user holds everything, the user
/// can do the same again, and memory comes back.
fn exhaust(platform: Platform, mode: &str, kib: u64, ways: &[&str]) {
    platform.require();
    let root = Root::new().busybox().program("exhaust");
    let root = root.file("/etc/passwd", b"root:x:0:0::/:/bin/sh\n");
    let mut run = Run::new(&[&["/bin/exhaust", mode], ways].concat());
    run.memory = kib << 10;
    let finished = run.timeout(1800).guest(platform, root.disk());
    let said = finished.text();
    let ways = ways
        .iter()
        .map(|way| format!("{way}: as Linux, root: works, then: works, memory: back\n"));
    let expected: String = ways.chain(["services: as planned\n".to_owned()]).collect();
    assert_eq!(said, expected, "{}", finished.circumstances());
    assert_eq!(finished.code, 0);
}

/// Under QEMU's interpreter all ways take minutes: there a third of them, unless everything is asked for.
fn under_qemu(first: usize) -> Vec<&'static str> {
    let (first, step) = if common::all() { (0, 1) } else { (first, 3) };
    let some: Vec<_> = ways().into_iter().skip(first).step_by(step).collect();
    if step > 1 {
        println!(
            "of the ways only {}: ABSENTIA_ALL tries all",
            some.join(", ")
        );
    }
    some
}

#[test]
fn a_user_alone_in_16_mib() {
    exhaust(Platform::Kvm, "alone", LEAST, &ways());
}

#[test]
fn a_user_alone_in_16_mib_under_qemu() {
    exhaust(Platform::Qemu, "alone", LEAST, &under_qemu(0));
}

#[test]
fn a_user_beside_one_who_took_all_memory() {
    exhaust(Platform::Kvm, "hog", LEAST, &ways());
}

#[test]
fn a_user_beside_one_who_took_all_memory_under_qemu() {
    exhaust(Platform::Qemu, "hog", LEAST, &under_qemu(1));
}

#[test]
fn a_user_where_memory_itself_refuses() {
    if !common::all() {
        return;
    }
    exhaust(Platform::Kvm, "full", 64 << 10, &ways());
}

/// Where the last page goes differs with every page that the machine has more.
#[test]
fn a_user_at_many_edges() {
    if !common::all() {
        return;
    }
    for more in (52..1024).step_by(212) {
        for mode in ["alone", "hog"] {
            println!("{mode} in {} KiB", LEAST + more);
            exhaust(Platform::Kvm, mode, LEAST + more, &ways());
        }
    }
}
