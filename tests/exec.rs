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
    let Some(path) = tool(name) else {
        eprintln!("SKIPPED: this host has no {name}");
        return;
    };
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

#[test]
fn execve_does_and_refuses_what_it_should() {
    Platform::Kvm.require();
    let root = Root::new().program("exec");
    let finished = Run::new(&["/bin/exec"]).guest(Platform::Kvm, root.disk());
    assert_eq!(finished.text(), "", "{}", finished.circumstances());
    finished.must_exit(0);
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

/// The interpreter with the part of its library that the program imports.
#[test]
fn python_counts() {
    Platform::Kvm.require();
    let python = tool("python3").expect("this test needs python3");
    let imports = "import threading, sys, os";
    let list = format!(
        "{imports}\nprint(os.path.realpath(sys.executable), sys.base_prefix, sep='\\n')\n\
         for m in list(sys.modules.values()):\n f = getattr(m, '__file__', None)\n if f: print(f)\n"
    );
    let output = Command::new(python)
        .args(["-S", "-E", "-c", &list])
        .output();
    let output = output.expect("python3");
    let text = String::from_utf8_lossy(&output.stdout);
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
    let finished = run.guest(Platform::Kvm, root.disk());
    finished.must_exit(0);
    assert_eq!(finished.text(), "499999500000\n[0, 1, 2, 3, 4, 5, 6, 7]\n");
}

/// Guest instructions of fork, exec of an 800 KiB static program, exit and wait, everything
/// cached: a tenth above what it costs.
#[test]
fn starting_a_program_stays_within_its_budget() {
    Platform::Qemu.require();
    let path = common::guest_program("exec-cost");
    for (how, budget) in [("fork", 235_000), ("vfork", 185_000)] {
        let mut program = Program::new([path.to_str().expect("UTF-8"), how, "30"]);
        program.accelerator = Some(Accelerator::Qemu);
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
