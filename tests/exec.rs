//! exec and dynamic programs: what execve does, a host's program with its libraries, and a
//! distribution's shell and tools.

mod common;

use std::path::Path;
use std::process::Command;

use absentia_vmm::machine::Accelerator;
use absentia_vmm::program::Program;
use absentia_vmm::root::closure;
use common::{Finished, Platform, Root, Run, tool};

const SCRIPT: &[u8] = include_bytes!("scripts/dynamic.sh");
const TOOLS: [&str; 31] = [
    "bash", "cat", "cp", "cut", "dash", "echo", "env", "find", "gawk", "grep", "ls", "make",
    "mkdir", "mktemp", "mv", "printf", "readlink", "rm", "sed", "seq", "sh", "sleep", "sort",
    "stat", "tail", "tee", "timeout", "tr", "uname", "wc", "xargs",
];

/// Puts a file of the host at the same path of the root.
fn copy(root: &Root, path: &Path) {
    let to = root.path(path.to_str().expect("UTF-8"));
    std::fs::create_dir_all(to.parent().expect("a directory")).expect("directory");
    std::fs::copy(path, to).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Puts a program of the host in /bin, and its libraries where it looks for them.
fn add(root: &Root, name: &str) {
    let path = tool(name).unwrap_or_else(|| panic!("the tests need {name}: see .ci/run"));
    let content = std::fs::read(&path).expect("program");
    let at = format!("/bin/{name}");
    std::fs::copy(&path, root.path(&at)).expect("program");
    add_libraries(root, &at, &content);
}

fn add_libraries(root: &Root, at: &str, content: &[u8]) {
    let needed = closure::of(Path::new("/"), at, content, None).expect("libraries");
    for (path, content) in needed.files {
        let to = root.path(&path);
        if !to.exists() {
            std::fs::create_dir_all(to.parent().expect("a directory")).expect("directory");
            std::fs::write(&to, content).expect("library");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&to, mode).expect("mode");
        }
    }
}

fn tools(platform: Platform) {
    platform.require();
    let root = Root::new().file("/work/dynamic.sh", SCRIPT);
    TOOLS.iter().for_each(|name| add(&root, name));
    let run = |here: &str| {
        std::fs::create_dir(root.path(here)).expect("directory");
        let mut run = Run::new(&["/bin/bash", "../dynamic.sh"]).cwd(here);
        run.env[0].1 = "/bin:/usr/bin".into();
        run
    };
    let guest = run("/work/guest").guest(platform, root.disk());
    let host = run("/work/host").host(&root);
    same(&guest, &host);
}

fn same(guest: &Finished, host: &Finished) {
    guest.must_exit(host.code);
    let ours = guest.text();
    assert_eq!(ours, host.text(), "{}", guest.circumstances());
}

#[test]
fn dynamic_tools_under_kvm() {
    tools(Platform::Kvm);
}

#[test]
fn dynamic_tools_under_qemu() {
    tools(Platform::Qemu);
}

/// Rows X1, X2, X4, X5, X6, X8 and X11 of the matrix: `tests/guest/exec.c` names them.
fn execve(platform: Platform) {
    platform.require();
    let root = Root::new().program("exec");
    let finished = Run::new(&["/bin/exec"]).guest(platform, root.disk());
    let text = finished.text();
    let one_line = text.lines().count() == 1 && text.contains(" bytes copied per exec of ");
    assert!(one_line, "{text}\n{}", finished.circumstances());
    println!("{text}");
    finished.must_exit(0);
}

#[test]
fn x1_to_x11_execve_does_and_refuses_what_it_should() {
    execve(Platform::Kvm);
}

#[test]
fn x1_to_x11_execve_under_qemu() {
    execve(Platform::Qemu);
}

/// Compiles a guest program dynamically, in the place of the static one.
fn dynamic(root: &Root, name: &str, at: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/guest")
        .join(format!("{name}.c"));
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-fPIE", "-pie", "-o"]).arg(root.path(at));
    let output = cc.arg(source).output().expect("cc");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let content = std::fs::read(root.path(at)).expect("program");
    add_libraries(root, at, &content);
}

/// Rows X3, X7 (a mapping that is refused is copied) and X10: a
/// failure at every step, in the middle of which the caller, its parent or its threads die.
fn faults(platform: Platform, rounds: &str) {
    platform.require();
    // A string a page: it must end where the mapping does.
    let byte = |i: u32| {
        if i % 4096 == 4095 {
            0
        } else {
            (i % 251 + 1) as u8
        }
    };
    let cold: Vec<u8> = (0..240 * 4096).map(byte).collect();
    let root = Root::new()
        .program("exec-faults")
        .file("/bin/script", b"#!/bin/exec-faults done\n")
        .file("/work/cold", &cold);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(root.path("/bin/script"), mode).expect("mode");
    dynamic(&root, "exec-faults", "/bin/dynamic");
    let args = ["exec-faults", "dynamic", "script"].map(|name| format!("/bin/{name}"));
    let mut run = Run::new(&["/bin/exec-faults", rounds, &args[0], &args[1], &args[2]]);
    run.timeout = std::time::Duration::from_secs(600);
    let finished = run.guest(platform, root.disk());
    let text = finished.text();
    println!("{text}");
    assert!(text.contains("deaths ok"), "{}", finished.circumstances());
    assert_eq!(text.lines().count(), 6, "{text}");
    finished.must_exit(0);
}

#[test]
fn x3_x10_a_failure_at_every_step_leaves_nothing_behind() {
    faults(Platform::Kvm, if common::all() { "50" } else { "10" });
}

#[test]
fn x3_x10_a_failure_at_every_step_under_qemu() {
    faults(Platform::Qemu, if common::all() { "5" } else { "2" });
}

/// Where the parts of programs are, with chance and without.
fn layouts(platform: Platform, random: bool) {
    platform.require();
    let root = Root::new().program("layout");
    std::fs::copy(root.path("/bin/layout"), root.path("/bin/fixed-address")).expect("copy");
    dynamic(&root, "layout", "/bin/anywhere");
    let word = if random { "random" } else { "fixed" };
    let args = ["/bin/layout", word, "/bin/fixed-address", "/bin/anywhere"];
    let mut run = Run::new(&args);
    run.fixed_layout = !random;
    let finished = run.guest(platform, root.disk());
    assert_eq!(finished.text(), "", "{}", finished.circumstances());
    finished.must_exit(0);
}

#[test]
fn layouts_are_random() {
    layouts(Platform::Kvm, true);
}

#[test]
fn layouts_are_fixed_where_asked_for() {
    layouts(Platform::Kvm, false);
}

#[test]
fn layouts_under_qemu() {
    layouts(Platform::Qemu, true);
}

#[test]
fn a_program_of_the_host_brings_its_libraries() {
    Platform::Kvm.require();
    let captured = Program::new(["/bin/ls", "-l", "/"])
        .capture(b"")
        .expect("a run");
    let text = String::from_utf8_lossy(&captured.stdout);
    assert_eq!(captured.outcome.ending.code(), 0, "{text}");
    assert!(text.starts_with("total "), "{text}");
    for name in ["bin", "dev", "etc", "lib64", "proc", "tmp", "usr"] {
        let line = |l: &str| l.contains("root root") && l.ends_with(&format!(" {name}"));
        assert!(text.lines().any(line), "{name} in:\n{text}");
    }
}

/// The interpreter with the part of its library that the program imports, against the host's.
fn python(platform: Platform) {
    platform.require();
    let python = tool("python3").expect("this test needs python3");
    let imports = "import threading, sys, os";
    let list = format!(
        "{imports}\nprint(os.path.realpath(sys.executable), sys.base_prefix, sep='\\n')\n\
         for m in list(sys.modules.values()):\n f = getattr(m, '__file__', None)\n if f: print(f)\n"
    );
    let host = |script: &str| {
        let output = Command::new(&python)
            .args(["-S", "-E", "-c", script])
            .output();
        let output = output.expect("python3");
        assert!(output.status.success(), "python3: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = host(&list);
    let mut lines = text.lines();
    let (program, prefix) = (
        lines.next().expect("program"),
        lines.next().expect("prefix"),
    );
    let root = Root::new();
    copy(&root, Path::new(program));
    add_libraries(&root, program, &std::fs::read(program).expect("python3"));
    for file in lines {
        copy(&root, Path::new(file));
        if file.ends_with(".so") {
            add_libraries(&root, file, &std::fs::read(file).expect("module"));
        }
    }
    let script = format!(
        "{imports}\nprint(sum(range(10**6)))\nfound = []\n\
         threads = [threading.Thread(target=lambda i=i: found.append(i)) for i in range(8)]\n\
         [t.start() for t in threads]; [t.join() for t in threads]\nprint(sorted(found))\n"
    );
    let mut run = Run::new(&[program, "-S", "-c", &script]);
    run.env.push(("PYTHONHOME".into(), prefix.into()));
    run.memory = 128 << 20;
    let finished = run.guest(platform, root.disk());
    finished.must_exit(0);
    assert_eq!(finished.text(), host(&script));
}

#[test]
fn python_counts_under_kvm() {
    python(Platform::Kvm);
}

#[test]
fn python_counts_under_qemu() {
    python(Platform::Qemu);
}

/// Guest instructions of fork, exec of an 800 KiB static program, exit and wait, everything
/// cached: some hundredths above what it costs.
#[test]
fn starting_a_program_stays_within_its_budget() {
    Platform::Qemu.require();
    let path = common::guest_program("exec-cost");
    for (how, budget) in [("fork", 222_500), ("vfork", 170_000)] {
        let mut program = Program::new([path.to_str().expect("UTF-8"), how, "30"]);
        program.accelerator = Some(Accelerator::Qemu);
        program.flags = abi::boot::run_flags::NO_RANDOMIZE;
        program.qemu_args = vec!["-icount".into(), "shift=0".into()];
        let captured = program.capture(b"").expect("a run");
        let text = String::from_utf8_lossy(&captured.stdout);
        let cost: u64 = text.trim().parse().unwrap_or(u64::MAX);
        println!("{how}: {cost} instructions");
        assert!(
            cost <= budget,
            "{how}: {cost} instructions, {budget} allowed"
        );
    }
}
