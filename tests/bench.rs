//! The exec benchmark, small, and what it compares: every backend makes the same process.

mod common;

use abi::exec::ExecBackend::{self, Buffer, Copy, Map};
use absentia_vmm::bench::exec::figures::Workload;
use absentia_vmm::bench::exec::report::RATIOS;
use absentia_vmm::bench::exec::{BUILD, Options, Report, measure};
use absentia_vmm::machine::Accelerator;
use common::{Platform, Root, Run};

const PAGE: f64 = 4096.0;

fn image(platform: Platform) {
    platform.require();
    let root = Root::new().program("exec-image");
    let finished = Run::new(&["/bin/exec-image"]).guest(platform, root.disk());
    assert_eq!(finished.text(), "", "{}", finished.circumstances());
    finished.must_exit(0);
}

#[test]
fn every_backend_makes_the_same_process_under_kvm() {
    image(Platform::Kvm);
}

#[test]
fn every_backend_makes_the_same_process_under_qemu() {
    image(Platform::Qemu);
}

fn small(accelerator: Accelerator, build: bool) -> Report {
    let report = measure(&Options {
        accelerator,
        gate: None,
        rounds: 2,
        build,
        progress: false,
    });
    report.expect("the benchmark")
}

fn workload<'a>(report: &'a Report, name: &str, cold: bool) -> &'a Workload {
    let all = &report.figures.workloads;
    let found = all.iter().find(|w| w.name == name && w.cold == cold);
    found.unwrap_or_else(|| panic!("no {name} in {}", report.table()))
}

/// What must hold of the counts, wherever they come from.
fn sensible(report: &Report, build: bool) {
    let table = report.table();
    let figures = &report.figures;
    let expected = 12 + usize::from(build);
    assert_eq!(
        (figures.workloads.len(), figures.traced.len()),
        (expected, 6),
        "{table}"
    );
    for workload in &figures.workloads {
        let rounds = if workload.cold || workload.name == BUILD {
            1
        } else {
            2
        };
        assert!(
            workload.runs.iter().all(|runs| runs.len() == rounds),
            "{table}"
        );
        for (name, of, to) in RATIOS {
            let ratio = workload.ratio(of, to).expect("a ratio");
            assert!((0.001..1000.0).contains(&ratio.median), "{name}: {table}");
        }
    }
    let bytes = |w: &Workload, backend| w.median(backend, "kernel.copied_bytes");
    for (name, size) in [
        ("static-50k", 50.0 * 1024.0),
        ("static-800k", 800.0 * 1024.0),
        ("static-4m", 4096.0 * 1024.0),
    ] {
        for cold in [false, true] {
            let w = workload(report, name, cold);
            let [map, copy, buffer] = ExecBackend::ALL.map(|backend| bytes(w, backend));
            // Data is copied once either way; text is not, once, and twice.
            assert!(copy >= map + 0.7 * size, "{name} {cold}: {table}");
            assert!(buffer >= copy + 0.5 * size, "{name} {cold}: {table}");
        }
        let w = workload(report, name, false);
        let visits = |backend| w.median(backend, "kernel.visits");
        assert!(
            visits(Map) < visits(Copy) && visits(Copy) < visits(Buffer),
            "{table}"
        );
        let messages = |backend| w.median(backend, "kernel.messages");
        assert!(messages(Map) < messages(Copy), "{table}");
        // docs/exec.md says what they are.
        let most = if name == "static-50k" { 25.0 } else { 61.0 };
        assert!(messages(Map) <= most, "{table}");
        // Cold, the disk is read.
        let cold = workload(report, name, true);
        for backend in ExecBackend::ALL {
            assert!(
                bytes(cold, backend) > bytes(w, backend) + 0.5 * size,
                "{table}"
            );
        }
    }
    // However long the text is, none of it is copied when it is cached.
    let [small, large] = ["static-800k", "static-4m"].map(|name| workload(report, name, false));
    let more = bytes(large, Map) - bytes(small, Map);
    assert!(more.abs() < PAGE, "{more} bytes more: {table}");
    assert!(bytes(large, Map) < 5.0 * PAGE, "{table}");
    // Only what is used comes from the disk.
    let whole = bytes(workload(report, "static-4m", true), Map);
    let part = bytes(workload(report, "static-4m-part", true), Map);
    assert!(part < whole / 2.0, "{table}");
    for traced in &figures.traced {
        for backend in ExecBackend::ALL {
            let parts = report.parts(traced, backend);
            assert_eq!(parts.len(), 10, "{table}");
            let fill = &parts[4];
            assert_eq!(fill.name, "fill");
            let file_system = fill.services.iter().any(|(name, _)| name == "ext2");
            assert_eq!(file_system, backend != Map, "{}: {fill:?}", traced.name);
        }
    }
    let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
    assert_eq!(json["workloads"].as_array().map(Vec::len), Some(expected));
    assert_eq!(json["stages"].as_array().map(Vec::len), Some(18));
    let first = &json["workloads"][0]["backends"]["buffer"];
    assert_eq!(first["runs"], 2);
    assert!(first["kernel.visits"]["median"].as_f64() > Some(20.0));
    let page = report.page();
    assert!(page.contains("<svg") && page.contains("4 MiB static, cold"));
}

#[test]
fn bench_exec_under_kvm() {
    Platform::Kvm.require();
    let report = small(Accelerator::Kvm, true);
    sensible(&report, true);
    let build = workload(&report, BUILD, false);
    let count = |backend, name| build.median(backend, name);
    for (name, least) in [("kernel.visits", 500.0), ("kernel.copied_bytes", 20e6)] {
        let saved = count(Buffer, name) - count(Map, name);
        assert!(saved > least, "{name}: {}", report.table());
    }
}

#[test]
fn bench_exec_under_qemu() {
    Platform::Qemu.require();
    let report = small(Accelerator::Qemu, false);
    sensible(&report, false);
    // Instructions are the same whatever else the host does.
    for workload in report.figures.workloads.iter().filter(|w| !w.cold) {
        let ratio = |of, to| workload.ratio(of, to).map_or(f64::NAN, |r| r.median);
        assert!(ratio(Map, Copy) < 0.9, "{}", report.table());
        assert!(ratio(Copy, Buffer) < 1.0, "{}", report.table());
    }
}
