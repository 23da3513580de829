//! Guests of a few instructions, on the real `/dev/kvm` and under QEMU: what a machine does
//! when its guest does what no guest should.

mod tiny;

use std::sync::Arc;
use std::time::{Duration, Instant};

use absentia_vmm::control::Reason;
use absentia_vmm::hostlink::input::Source;
use absentia_vmm::hostlink::output::Sink;
use absentia_vmm::images::Archive;
use absentia_vmm::kvm::gate::Gate;
use absentia_vmm::log::Log;
use absentia_vmm::machine::{Accelerator, Config, Ending, Outcome, run};
use tiny::{POWER_OFF, kernel};

fn config(code: &[u8], accelerator: Accelerator) -> Config {
    Config {
        kernel: kernel(code).into(),
        archive: Archive::default(),
        cmdline: String::new(),
        memory: 32 << 20,
        disk: None,
        accelerator,
        gate: None,
        timeout: Some(Duration::from_secs(20)),
        stdin: Source::Bytes(Vec::new()),
        stdout: Sink::capture().0,
        stderr: Sink::capture().0,
        signals: None,
        log: Arc::new(Log::new(false, 200)),
        report: None,
        qemu_args: Vec::new(),
        sandbox: absentia_vmm::sandbox::Sandbox::Off,
    }
}

/// Runs code on KVM, without which this fails.
fn on_kvm(code: &[u8]) -> Outcome {
    run(config(code, Accelerator::Kvm)).unwrap()
}

fn guest_ended(outcome: &Outcome) -> &str {
    match &outcome.ending {
        Ending::Guest(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_guest_can_power_off() {
    let outcome = on_kvm(&POWER_OFF);
    assert!(guest_ended(&outcome).contains("status 9"));
    assert!(outcome.exits.total() >= 1);
}

#[test]
fn qemu_boots_the_same_image() {
    // mov $0x3f8, %edx; mov $'x', %al; out %al, (%dx)
    let mut code = vec![0xba, 0xf8, 3, 0, 0, 0xb0, b'x', 0xee];
    code.extend(POWER_OFF);
    let outcome = run(config(&code, Accelerator::Qemu)).unwrap();
    assert!(guest_ended(&outcome).contains("status 9"), "{outcome:?}");
    assert!(
        outcome.log.iter().any(|line| line.ends_with("serial] x")),
        "{outcome:?}"
    );
}

#[test]
fn a_spinning_guest_is_stopped_in_time() {
    // Spinning, halted without interrupts, and hammering a port.
    for code in [
        &[0xeb, 0xfe][..],
        &[0xfa, 0xf4, 0xeb, 0xfd],
        &[0xe6, 0x80, 0xeb, 0xfc],
    ] {
        let begun = Instant::now();
        let timeout = Some(Duration::from_millis(200));
        let outcome = run(Config {
            timeout,
            ..config(code, Accelerator::Kvm)
        })
        .unwrap();
        assert_eq!(outcome.ending, Ending::Stopped(Reason::Timeout));
        assert_eq!(outcome.ending.code(), 124);
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn qemu_is_stopped_in_time() {
    let begun = Instant::now();
    let timeout = Some(Duration::from_millis(500));
    let outcome = run(Config {
        timeout,
        ..config(&[0xeb, 0xfe], Accelerator::Qemu)
    })
    .unwrap();
    assert_eq!(outcome.ending, Ending::Stopped(Reason::Timeout));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_triple_fault_is_told_with_registers() {
    // mov $0x12345678, %ebx; ud2, without an IDT
    let outcome = on_kvm(&[0xbb, 0x78, 0x56, 0x34, 0x12, 0x0f, 0x0b]);
    let text = guest_ended(&outcome);
    assert!(text.contains("KVM_EXIT_SHUTDOWN"), "{text}");
    // Where SVM ends a machine so, KVM starts the processor anew: the registers are gone, and it is said.
    let gone = text.contains(absentia_vmm::kvm::vcpu::STARTED_ANEW);
    assert!(gone || text.contains("rbx 0000000012345678"), "{text}");
}

#[test]
fn an_instruction_that_kvm_cannot_emulate_is_shown() {
    // popcnt %eax, %eax; then power off.
    let mut code = vec![0xf3, 0x0f, 0xb8, 0xc0];
    code.extend(POWER_OFF);
    let outcome = on_kvm(&code);
    if outcome.gate == Some(Gate::Deprivileged) {
        let text = guest_ended(&outcome);
        assert!(text.contains("KVM_EXIT_INTERNAL_ERROR"), "{text}");
        assert!(text.contains("[f3, 0f, b8, c0"), "{text}");
    } else {
        assert!(guest_ended(&outcome).contains("status 9"));
    }
}

#[test]
fn wild_accesses_are_harmless_and_named_once() {
    // mov 0xe0000000, %eax; cmp $-1, %eax; jne bad; mov %eax, 0xd0010004; mov %eax, 0xe0000000;
    // in $0x99, %eax; loop 100 times over `mov %eax, 0xe0000000`; power off; bad: ud2
    let mut code = vec![0xa1, 0, 0, 0, 0xe0, 0x83, 0xf8, 0xff, 0x75, 33];
    code.extend([0xa3, 4, 0, 1, 0xd0]);
    code.extend([0xa3, 0, 0, 0, 0xe0]);
    code.extend([0xe5, 0x99]);
    code.extend([0xb9, 100, 0, 0, 0]);
    code.extend([0xa3, 0, 0, 0, 0xe0, 0xe2, 0xf9]);
    code.extend(POWER_OFF);
    code.extend([0x90, 0x90, 0x0f, 0x0b]);
    let outcome = on_kvm(&code);
    assert!(guest_ended(&outcome).contains("status 9"), "{outcome:?}");
    let named = outcome
        .log
        .iter()
        .filter(|line| line.contains("0xe0000000"))
        .count();
    assert_eq!(named, 1, "{:?}", outcome.log);
}

#[test]
fn endless_serial_output_is_bounded() {
    // mov $0x3f8, %edx; again: out %al, (%dx); jmp again
    let code = [0xba, 0xf8, 3, 0, 0, 0xee, 0xeb, 0xfd];
    let timeout = Some(Duration::from_millis(300));
    let outcome = run(Config {
        timeout,
        ..config(&code, Accelerator::Kvm)
    })
    .unwrap();
    assert_eq!(outcome.ending, Ending::Stopped(Reason::Timeout));
    assert!(outcome.log.len() <= 200);
}

#[test]
fn the_guest_learns_its_gate() {
    // mov $0x40000100, %eax; cpuid; and $0xff, %eax (0x50 of the magic number); out %eax, $0xf4
    let code = [
        0xb8, 0, 1, 0, 0x40, 0x0f, 0xa2, 0x25, 0xff, 0, 0, 0, 0xe7, 0xf4,
    ];
    for (gate, status) in [(Gate::Deprivileged, Some(0x50)), (Gate::Direct, None)] {
        let outcome = run(Config {
            gate: Some(gate),
            ..config(&code, Accelerator::Kvm)
        })
        .unwrap();
        let text = guest_ended(&outcome);
        let told = text.contains(&format!("status {}", 0x50));
        assert_eq!(told, status.is_some(), "{gate:?}: {text}");
    }
}

#[test]
fn a_machine_that_cannot_be_built_is_an_error() {
    for memory in [0, 4096, (64 << 20) + 1, 512 << 30] {
        assert!(
            run(Config {
                memory,
                ..config(&POWER_OFF, Accelerator::Kvm)
            })
            .is_err()
        );
    }
    let rubbish = Config {
        kernel: vec![1; 100].into(),
        ..config(&[], Accelerator::Kvm)
    };
    assert!(run(rubbish).is_err());
}
