//! Services that die, or answer nonsense: row V16 of the matrix and its relatives, and what of
//! msync(MS_SYNC) only a failing or a raw disk can show; services that do not come to life.
//! `tests/scenarios/death.c` sees it from inside; the word `absentia.fail` on the kernel's command
//! line makes it happen.

mod common;

use abi::boot::CMDLINE_FAIL;
use abi::policy::CopyPolicy;
use absentia_vmm::machine::FAILED;
use common::{Finished, Platform, Root, Run, with_cold_files};

fn run(platform: Platform, policy: CopyPolicy, fail: &str, case: &str) -> Finished {
    platform.require();
    let mut run = Run::new(&["/bin/death", case]).timeout(60);
    run.policy = policy;
    run.sanity = true;
    if !fail.is_empty() {
        run.words = format!("{CMDLINE_FAIL}{fail}");
    }
    let root = with_cold_files(Root::new().program("death"), 48);
    run.guest(platform, root.disk())
}

fn log(finished: &Finished) -> String {
    let outcome = finished.outcome.as_ref().expect("a run of the guest");
    outcome.log.join("\n")
}

/// The case must hold, and the machine must end by itself, after the service's death if `dead`.
fn holds(fail: &str, case: &str, dead: bool) {
    holds_on(Platform::Kvm, CopyPolicy::Try, fail, case, dead);
}

fn holds_on(platform: Platform, policy: CopyPolicy, fail: &str, case: &str, dead: bool) {
    let finished = run(platform, policy, fail, case);
    assert_eq!(
        finished.text(),
        format!("{case} ok\n"),
        "{}",
        finished.circumstances()
    );
    let service = fail.split(':').next().unwrap_or_default();
    // Whether a dead file system, or one without its disk, had anything to write back, nobody knows.
    let unsaved = dead && matches!(service, "ext2" | "virtio-blk");
    finished.must_exit(if unsaved { FAILED.into() } else { 0 });
    let died = log(&finished).contains(&format!("service {service} ("));
    assert_eq!(died, dead, "{}", finished.circumstances());
}

/// The 35th page: after those of the program itself, in the midst of its cold files.
#[test]
fn v16_a_file_system_that_dies_in_a_repair_gives_eio() {
    holds("ext2:peek:35:crash", "V16-crash", true);
}

#[test]
fn v16_a_page_fault_is_a_death_too() {
    holds("ext2:peek:35:fault", "V16-crash", true);
}

#[test]
fn v16_a_file_system_that_dies_with_the_data_gives_eio() {
    holds("ext2:write:3:crash", "V16-crash", true);
}

#[test]
fn v16_likewise_under_file_only() {
    let fail = "ext2:peek:35:crash";
    holds_on(Platform::Kvm, CopyPolicy::FileOnly, fail, "V16-crash", true);
}

#[test]
fn v16_likewise_under_qemu() {
    let fail = "ext2:peek:35:crash";
    holds_on(Platform::Qemu, CopyPolicy::Try, fail, "V16-crash", true);
}

/// The first page only finds out whether files of this file system can be mapped.
#[test]
fn v16_another_file_system_dies_and_the_root_goes_on() {
    holds("tmpfs:peek:2:crash", "V16-tmpfs", true);
}

/// Linux's ERESTART, and the number that VFS itself uses inside.
#[test]
fn v16_restart_errors_become_eio() {
    holds("ext2:write:2:85", "V16-restart", false);
    holds("ext2:write:2:512", "V16-restart", false);
}

#[test]
fn a_dead_disk_driver_is_an_io_error() {
    holds("virtio-blk:read:70:crash", "driver", true);
}

#[test]
fn a_dead_character_driver_is_an_io_error() {
    holds("mem:read:2:fault", "memory-driver", true);
}

/// The boot ends at once, nothing waits for the timeout, and its last word is `said`.
fn ends_the_boot(finished: &Finished, said: &str) {
    let log = log(finished);
    finished.must_exit(125);
    assert!(!finished.timed_out(), "{log}");
    assert!(
        log.contains(said) && !log.contains("panic"),
        "{said}:\n{log}"
    );
}

#[test]
fn a_death_while_mounting_ends_the_boot() {
    for fail in [
        "ext2:super:1:crash",
        "tmpfs:super:1:fault",
        "virtio-blk:read:1:crash",
    ] {
        let finished = run(Platform::Kvm, CopyPolicy::Try, fail, "nothing");
        let service = fail.split(':').next().unwrap_or_default();
        let said = format!("the system did not come up: service {service} died");
        ends_the_boot(&finished, &said);
    }
}

/// The steps of RS's exec of a service, until one more makes no difference.
fn each_step(service: &str, mut check: impl FnMut(u32) -> bool) {
    let steps = (1..100).take_while(|&step| check(step)).count();
    // At least: image, header, plan, arguments, privileges, priority, space, a mapping and a
    // copy, stack, its contents, start.
    assert!((12..99).contains(&steps), "{service}: {steps} steps");
}

/// Whether there is such a step: then the boot ends with it.
fn step_ends_the_boot(platform: Platform, service: &str, step: u32) -> bool {
    let fail = format!("{service}:exec:{step}:12");
    let finished = run(platform, CopyPolicy::Try, &fail, "nothing");
    if finished.code == 0 {
        return false;
    }
    ends_the_boot(
        &finished,
        &format!("starting service {service}: step {step} of its exec, "),
    );
    assert!(log(&finished).contains(": ENOMEM"));
    true
}

#[test]
fn a_failing_step_of_a_service_exec_ends_the_boot() {
    for service in ["pm", "vfs", "virtio-blk", "console", "mem", "ext2"] {
        each_step(service, |step| {
            step_ends_the_boot(Platform::Kvm, service, step)
        });
    }
}

#[test]
fn a_failing_step_of_a_service_exec_ends_the_boot_under_qemu() {
    for step in [1, 7, 9, 12] {
        assert!(step_ends_the_boot(Platform::Qemu, "ext2", step));
    }
}

/// The system goes on without what it can do without, and has all its frames: as many are free
/// after every step, the first of which is before there is anything to give back.
#[test]
fn a_failing_step_of_an_optional_service_exec_leaves_nothing_behind() {
    let root = Root::new().busybox();
    for service in ["devfs", "tmpfs"] {
        let mut frames: Option<String> = None;
        each_step(service, |step| {
            let mut run = Run::new(&["/bin/busybox", "cat", "/proc/absentia/frames"]).timeout(60);
            run.sanity = true;
            run.fixed_layout = true;
            run.words = format!("{CMDLINE_FAIL}{service}:exec:{step}:12");
            let finished = run.guest(Platform::Kvm, root.disk());
            finished.must_exit(0);
            let said = format!("going on without service {service}: step {step} of its exec, ");
            if !log(&finished).contains(&said) {
                return false;
            }
            let now = finished.text();
            assert!(now.contains("vfs ") && !now.contains(service), "{now}");
            let first = frames.get_or_insert_with(|| now.clone());
            assert_eq!(*first, now, "step {step}");
            true
        });
    }
}

#[test]
fn without_proc_the_system_goes_on_too() {
    each_step("proc", |step| {
        let fail = format!("proc:exec:{step}:12");
        let finished = run(Platform::Kvm, CopyPolicy::Try, &fail, "nothing");
        finished.must_exit(0);
        log(&finished).contains("going on without service proc")
    });
}

#[test]
fn a_root_that_cannot_be_mounted_is_said() {
    let finished = run(Platform::Kvm, CopyPolicy::Try, "ext2:super:1:5", "nothing");
    let log = log(&finished);
    assert!(log.contains("mounting the root disk: EIO"), "{log}");
    assert_ne!(finished.code, 0);
}

#[test]
fn a_failure_of_nobody_is_refused() {
    for fail in [
        "ext3:read:1:crash",
        "ext2:reed:1:crash",
        "ext2:read:0:5",
        "ext2:exec:0:5",
        "ext2:exec:3:crash",
        "ext2",
    ] {
        let finished = run(Platform::Kvm, CopyPolicy::Try, fail, "nothing");
        assert!(
            log(&finished).contains(fail.trim_start_matches("ext2:")),
            "{fail}"
        );
        assert_ne!(finished.code, 0, "{fail}");
    }
}

#[test]
fn msync_returns_when_the_disk_has_it() {
    holds("", "msync", false);
}

#[test]
fn msync_reports_what_the_disk_says() {
    holds("ext2:sync:1:5", "msync-error", false);
}
