//! Programs of a distribution, unmodified, in the guest and on the host: a compiler and make
//! with the C library's headers, version control, data bases, languages, compressors. What
//! they say must be the same.

mod common;

use std::path::{Path, PathBuf};

use absentia_vmm::program::Program;
use absentia_vmm::root::closure;
use common::{Finished, Platform, Root, Run, tool};

const SCRIPT: &[u8] = include_bytes!("scripts/real.sh");
const TOOLS: [&str; 54] = [
    "bash",
    "base64",
    "basename",
    "bc",
    "cat",
    "chmod",
    "cksum",
    "cmp",
    "comm",
    "cp",
    "cut",
    "date",
    "dd",
    "diff",
    "echo",
    "env",
    "expr",
    "factor",
    "find",
    "fold",
    "gawk",
    "grep",
    "gzip",
    "head",
    "join",
    "jq",
    "ln",
    "ls",
    "m4",
    "make",
    "md5sum",
    "mkdir",
    "mv",
    "od",
    "openssl",
    "paste",
    "patch",
    "perl",
    "rm",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "sqlite3",
    "tac",
    "tail",
    "tar",
    "tcc",
    "touch",
    "tr",
    "wc",
    "xz",
];

/// Where the host has what no ELF file names.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu";

fn add(root: &Root, name: &str) {
    let path = tool(name).unwrap_or_else(|| panic!("the tests need {name}: see .ci/run"));
    let content = std::fs::read(&path).expect("program");
    let at = format!("/bin/{name}");
    std::fs::copy(&path, root.path(&at)).expect("program");
    let needed = closure::of(Path::new("/"), &at, &content, None).expect("libraries");
    for (path, content) in needed.files {
        put(&root.path(&path), &content);
    }
}

fn put(to: &Path, content: &[u8]) {
    if !to.exists() {
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("directory");
        std::fs::write(to, content).expect("file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(to, mode).expect("mode");
    }
}

/// Copies a file or a tree of the host to the same path, links as what they lead to.
fn copy(root: &Root, path: &Path) {
    let what = std::fs::metadata(path);
    let what = what.unwrap_or_else(|error| panic!("{}: {error}: see .ci/run", path.display()));
    if what.is_dir() {
        for entry in std::fs::read_dir(path).expect("directory") {
            copy(root, &entry.expect("entry").path());
        }
    } else {
        let content = std::fs::read(path).expect("file");
        put(&root.path(path.to_str().expect("UTF-8")), &content);
    }
}

/// Headers, start files and libraries of tcc and libc6-dev.
fn add_c(root: &Root) {
    let library = PathBuf::from(LIBRARY);
    for name in [
        "tcc",
        "crt1.o",
        "crti.o",
        "crtn.o",
        "libc.so",
        "libc_nonshared.a",
    ] {
        copy(root, &library.join(name));
    }
    for tree in ["x86_64-linux-gnu", "linux", "asm-generic"] {
        copy(root, &Path::new("/usr/include").join(tree));
    }
    for entry in std::fs::read_dir("/usr/include").expect("libc6-dev") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|e| e == "h") {
            copy(root, &path);
        }
    }
    // The linker script names them here, and tcc looks for the dynamic linker beside libc.
    for name in ["libc.so.6", "ld-linux-x86-64.so.2"] {
        copy(root, &Path::new("/lib/x86_64-linux-gnu").join(name));
    }
    copy(root, Path::new("/lib64/ld-linux-x86-64.so.2"));
}

fn same(platform: Platform) {
    platform.require();
    let root = Root::new().file("/work/real.sh", SCRIPT);
    TOOLS.iter().for_each(|name| add(&root, name));
    add_c(&root);
    let run = |here: &str| {
        std::fs::create_dir(root.path(here)).expect("directory");
        let mut run = Run::new(&["/bin/bash", "../real.sh"])
            .cwd(here)
            .timeout(300);
        run.env[0].1 = "/bin:/usr/bin".into();
        run.memory = 192 << 20;
        run
    };
    let guest = run("/work/guest").guest(platform, root.disk());
    let host: Finished = run("/work/host").host(&root);
    guest.must_exit(host.code);
    assert_eq!(guest.text(), host.text(), "{}", guest.circumstances());
    assert!(host.text().contains("tcc: 6765"), "{}", host.text());
}

#[test]
fn real_programs_under_kvm() {
    same(Platform::Kvm);
}

#[test]
fn real_programs_under_qemu() {
    same(Platform::Qemu);
}

/// perl, which finds its own library only when it is taken along as the run without it advises.
#[test]
fn a_language_gets_its_library_by_the_advice() {
    Platform::Kvm.require();
    let script = "use POSIX qw(floor); use List::Util qw(sum); print floor(sum(1..10) / 4), qq(\n)";
    let perl = tool("perl").expect("this test needs perl");
    let mut with = Vec::new();
    for round in 0..4 {
        let mut program = Program::new([perl.as_os_str(), "-e".as_ref(), script.as_ref()]);
        program.with = with.clone();
        let captured = program.capture(b"").expect("a run");
        let said = String::from_utf8_lossy(&captured.stderr);
        if captured.outcome.ending.code() == 0 {
            assert_eq!(captured.stdout, b"13\n", "{said}");
            assert!(round > 0, "it found its library in the guest");
            return;
        }
        let advice = captured.outcome.advice;
        let advice = advice.unwrap_or_else(|| panic!("no advice: {said}"));
        with.extend(advice.with.into_iter().map(PathBuf::from));
    }
    panic!("{with:?} is not enough");
}
