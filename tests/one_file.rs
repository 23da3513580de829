//! The command is one file that needs nothing beside it: no library, no tool, no source tree.
//!
//! `ABSENTIA_TESTED` names another file than the one that cargo built for the tests: a release.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::Platform;
use goblin::elf::Elf;
use tempfile::TempDir;

fn absentia() -> PathBuf {
    let named = std::env::var_os("ABSENTIA_TESTED");
    named
        .unwrap_or(env!("CARGO_BIN_EXE_absentia").into())
        .into()
}

/// A root with the command in it, `/dev/kvm` and `/proc`, and nothing else.
struct Empty {
    dir: TempDir,
}

impl Empty {
    fn new() -> Empty {
        Platform::Kvm.require();
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["dev", "proc"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        fs::write(dir.path().join("dev/kvm"), "").expect("a place for the device");
        fs::copy(absentia(), dir.path().join("absentia")).expect("the one file");
        Empty { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the command there, without any environment.
    fn run(&self, arguments: &[&str]) -> Output {
        const ENTER: &str = "mount --rbind /proc \"$0/proc\" && \
            { [ ! -e \"$0/dev/kvm\" ] || mount --bind /dev/kvm \"$0/dev/kvm\"; } && \
            exec env -i \"$(PATH=$PATH:/usr/sbin:/sbin command -v chroot)\" \"$0\" /absentia \"$@\"";
        let output = common::with_own_mounts(ENTER)
            .arg(self.path())
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        output.expect("unshare")
    }

    /// Likewise; its standard output, when it succeeds.
    fn works(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{text}{errors}",
            output.status
        );
        text
    }

    /// Likewise; its standard error, when it fails.
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

#[test]
fn the_command_is_static() {
    let file = fs::read(absentia()).expect("the command");
    let elf = Elf::parse(&file).expect("an ELF file");
    assert_eq!(elf.interpreter, None);
    assert!(elf.libraries.is_empty(), "{:?}", elf.libraries);
}

#[test]
fn an_empty_root_is_enough() {
    let empty = Empty::new();
    let said = empty.works(&["run"]);
    assert!(said.contains("This is Absentia"), "{said}");
    let said = empty.works(&["run", "--deterministic"]);
    assert!(said.contains("This is Absentia"), "{said}");

    let said = empty.works(&["demo"]);
    assert!(said.contains(" deadlock") && said.contains(" ok"), "{said}");
    let report = empty.path().join("absentia-report/index.html");
    assert!(report.is_file(), "no report: {said}");

    let said = empty.works(&["explore", "d1-read", "--policy", "try", "--limit", "20"]);
    assert!(said.contains("d1-read"), "{said}");
    let said = empty.works(&["explore", "futex", "--list"]);
    assert!(said.contains("# futex"), "{said}");
    let said = empty.works(&["replay", "d1-read@try~first"]);
    assert!(said.contains("this run: ok"), "{said}");

    let said = empty.works(&["bench", "ipc"]);
    assert!(said.contains("null"), "{said}");
    let said = empty.works(&["bench", "exec", "--rounds", "1"]);
    assert!(said.contains("dynamic (libc)"), "{said}");
}

/// What the file does not have is named in a line, with the package that has it.
#[test]
fn what_is_missing_there_is_said_in_a_line() {
    let empty = Empty::new();
    let said = empty.works(&["explore", "--export", "d1-read", "/mine"]);
    assert_eq!(said, "/mine/d1-read.toml\n");
    // Where --root DIRECTORY makes its image.
    fs::create_dir(empty.path().join("tmp")).expect("a directory");
    for (arguments, package) in [
        (&["explore", "/mine/d1-read.toml"][..], "gcc"),
        (&["explore", "shell-script"], "busybox-static"),
        (&["run", "--root", "/mine", "--", "/x"], "e2fsprogs"),
        (&["run", "--accel", "qemu"], "qemu-system-x86"),
    ] {
        let said = empty.fails(arguments);
        assert!(said.contains(package), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    }
}

/// What the doctor said, and the status it ended with.
fn said(output: &Output) -> (String, Option<i32>) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (
        String::from_utf8_lossy(&text).into_owned(),
        output.status.code(),
    )
}

#[test]
fn the_doctor_says_what_is_missing_and_whether_run_works() {
    let empty = Empty::new();
    let (text, status) = said(&empty.run(&["doctor"]));
    assert_eq!(status, Some(0), "{text}");
    for line in [
        "kvm       /dev/kvm is usable",
        "run       works: under KVM",
        "gate  ",
    ] {
        assert!(text.contains(line), "no {line:?}: {text}");
    }
    for package in [
        "qemu-system-x86",
        "e2fsprogs",
        "gcc libc6-dev",
        "busybox-static",
    ] {
        let remedy = format!("-> install what Debian calls {package}");
        assert!(text.contains(&remedy), "no {remedy:?}: {text}");
    }

    fs::remove_file(empty.path().join("dev/kvm")).expect("the place of the device");
    let (text, status) = said(&empty.run(&["doctor"]));
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("/dev/kvm is not there\n"), "{text}");
    assert!(text.contains("run       does not work: "), "{text}");
}

/// Where there is QEMU, no KVM is a lack, but not the end.
#[test]
fn the_doctor_runs_a_program_under_qemu_where_kvm_is_not() {
    Platform::Qemu.require();
    let output = common::with_own_mounts("mount --bind /dev/null /dev/kvm && exec \"$0\" doctor")
        .arg(absentia())
        .stdin(Stdio::null())
        .output();
    let (text, status) = said(&output.expect("unshare"));
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("/dev/kvm is not KVM's"), "{text}");
    assert!(text.contains("run       works: under QEMU"), "{text}");
}

/// What the Debian package is made of is there: what it takes from the tree, and what the command
/// writes. `packaging/check` makes and installs it.
#[test]
fn the_package_has_all_its_files() {
    let made = tempfile::tempdir().expect("a directory");
    let command = |arguments: &[&str]| {
        let output = Command::new(absentia())
            .args(arguments)
            .current_dir(made.path())
            .output();
        let output = output.expect("the command");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output.stdout
    };
    command(&["manual", "man"]);
    fs::create_dir(made.path().join("completions")).expect("a directory");
    for shell in ["bash", "zsh", "fish"] {
        let text = command(&["completions", shell]);
        let known = String::from_utf8_lossy(&text).contains("deterministic");
        assert!(known, "completions for {shell}");
        fs::write(made.path().join("completions").join(shell), text).expect("completions");
    }
    let vmm = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(vmm.join("Cargo.toml")).expect("the manifest");
    let manifest: toml::Table = manifest.parse().expect("the manifest");
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array();
    let assets = assets.expect("assets");
    assert!(assets.len() > 5);
    for asset in assets {
        let from = asset[0].as_str().expect("a path");
        let path = match from.strip_prefix("../target/package/") {
            Some(path) => made.path().join(path),
            None if from.starts_with("target/") => continue,
            None => vmm.join(from),
        };
        let (directory, name) = (path.parent().expect("a directory"), path.file_name());
        let name = name.and_then(|name| name.to_str()).expect("a name");
        let fits = |file: &str| match name.split_once('*') {
            Some((front, back)) => file.starts_with(front) && file.ends_with(back),
            None => file == name,
        };
        let mut files = fs::read_dir(directory).expect("a directory");
        let found = files.any(|file| file.is_ok_and(|f| f.file_name().to_str().is_some_and(fits)));
        assert!(found, "the package wants {from}");
    }
}
