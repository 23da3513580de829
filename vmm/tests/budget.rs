//! What the kernel may cost, in guest instructions: under QEMU's `-icount shift=0` they are
//! counted, the same in every run, whatever else the host does.

use absentia_vmm::bench::ipc;
use absentia_vmm::machine::Accelerator;

/// Instructions of the kernel's part of one operation, trap instructions included, the
/// user-mode instructions around them not. A change that costs more is to be seen; one that
/// costs less lowers the number here.
const BUDGET: [(&str, f64); 5] = [
    // A trap and back, with the smallest kernel call in it.
    ("null", 120.0),
    // A call and its reply: two traps, two switches of process. The limit is the system's
    // promise.
    ("call", 400.0),
    // A copy through a grant: looking up grant and pages, and the bytes. Seven of them are the
    // laboratory's point at the grant, and that reading it may fault.
    ("safecopy-64", 895.0),
    ("safecopy-4096", 1400.0),
    // The same as a call, entered by a Linux process's `syscall`.
    ("linux-null", 400.0),
];

#[test]
fn the_kernel_keeps_its_budget() {
    let report = ipc::measure(Accelerator::Qemu, None).expect("the measurement under QEMU");
    eprintln!("{}", report.table());
    for (name, limit) in BUDGET {
        let figure = report.figure(name).unwrap_or_else(|| panic!("no {name}"));
        assert!(
            figure.kernel <= limit,
            "{name} takes {:.0} instructions, more than {limit}\n{}",
            figure.kernel,
            report.table()
        );
        // Figures that are far too good are not figures of this.
        assert!(figure.kernel > 50.0, "{}", report.table());
    }
    let visits = |name: &str| {
        report
            .figure(name)
            .map_or(0.0, |figure| figure.visits.round())
    };
    assert_eq!(
        (visits("null"), visits("call"), visits("linux-null")),
        (1.0, 2.0, 2.0)
    );
}
