//! The rows G, K and M of the test matrix at the interfaces of kernel and VM. For G and K the
//! image `ipc-bench` boots in VM's place and checks grants and copies against a pager of its
//! own; for M and K4 VM is the real one, and the image its neighbours: RS, VFS and others.
//!
//! Why so: docs/decisions/019-what-a-test-shows.md.

mod common;

use std::sync::Arc;
use std::time::Duration;

use abi::boot::{CMDLINE_COPY, names, run_flags};
use abi::policy::CopyPolicy;
use absentia_vmm::hostlink::input::Source;
use absentia_vmm::hostlink::output::Sink;
use absentia_vmm::images::{GuestImages, RunSpecification};
use absentia_vmm::log::{KEPT, Log};
use absentia_vmm::machine::{self, Accelerator, Config};
use common::{Platform, sabotage_word};

const ROWS: [&str; 18] = [
    "G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10", "G11", "G13", "G14", "K1", "K2",
    "K3", "K5", "along",
];
/// Those where a copy that may fail is parked first (policy `file-only`).
const PARKED_ROWS: [&str; 1] = ["G12"];

/// Those between VM and its neighbours.
const MEMORY_ROWS: [&str; 10] = ["M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8", "M9", "K4"];

fn all_rows(accelerator: Accelerator) {
    rows(accelerator, bench(), CopyPolicy::Try, &ROWS);
    rows(accelerator, bench(), CopyPolicy::FileOnly, &PARKED_ROWS);
}

fn bench() -> GuestImages {
    GuestImages::bench().expect("the image")
}

/// VM, and the test's image in RS's place.
fn neighbours() -> GuestImages {
    let mut images = GuestImages::load().expect("the images");
    images.servers.retain(|image| image.name == names::VM);
    let mut bench = bench().servers;
    for image in &mut bench {
        image.name = names::RS.into();
    }
    images.servers.append(&mut bench);
    images
}

fn rows(accelerator: Accelerator, images: GuestImages, policy: CopyPolicy, rows: &[&str]) {
    let specification = RunSpecification {
        args: vec![b"rows".to_vec()],
        cwd: b"/".to_vec(),
        flags: run_flags::VM_SANITY,
        ..RunSpecification::default()
    };
    let (kernel, archive) = images.archive(specification.encode().expect("run specification"), "");
    let outcome = machine::run(Config {
        kernel,
        archive,
        cmdline: format!("rows {CMDLINE_COPY}{}{}", policy.name(), sabotage_word()),
        memory: 64 << 20,
        disk: None,
        accelerator,
        gate: None,
        timeout: Some(Duration::from_secs(60)),
        stdin: Source::Bytes(Vec::new()),
        stdout: Sink::capture().0,
        stderr: Sink::capture().0,
        signals: None,
        log: Arc::new(Log::new(false, KEPT)),
        report: None,
        qemu_args: Vec::new(),
        sandbox: absentia_vmm::sandbox::Sandbox::Off,
    })
    .expect("the machine");
    let log = outcome.log.join("\n");
    for row in rows {
        assert!(log.contains(&format!("row {row} ok")), "{row}:\n{log}");
    }
}

#[test]
fn matrix_g_and_k_under_kvm() {
    Platform::Kvm.require();
    all_rows(Accelerator::Kvm);
}

#[test]
fn matrix_g_and_k_under_qemu() {
    Platform::Qemu.require();
    all_rows(Accelerator::Qemu);
}

#[test]
fn matrix_m_under_kvm() {
    Platform::Kvm.require();
    rows(
        Accelerator::Kvm,
        neighbours(),
        CopyPolicy::Try,
        &MEMORY_ROWS,
    );
}

#[test]
fn matrix_m_under_qemu() {
    Platform::Qemu.require();
    rows(
        Accelerator::Qemu,
        neighbours(),
        CopyPolicy::Try,
        &MEMORY_ROWS,
    );
}
