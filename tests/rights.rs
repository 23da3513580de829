//! The rights of files are Linux's (docs/rights.md): `guest/rights-files.c` as root and, in its children,
//! as others, on both file systems.

mod common;

use common::{Platform, Root, Run};

const SECTIONS: [&str; 8] = [
    "bits",
    "owners",
    "creation",
    "names",
    "rest",
    "programs",
    "copies",
    "capabilities",
];

/// What this host's Linux protects: hard links, symbolic links, fifos, regular files.
fn host_protections() -> Vec<String> {
    let knobs = ["hardlinks", "symlinks", "fifos", "regular"];
    let read = |knob| std::fs::read_to_string(format!("/proc/sys/fs/protected_{knob}"));
    let values = knobs.map(|knob| read(knob).expect("a knob of Linux"));
    values.map(|value| value.trim().to_string()).to_vec()
}

fn compare(platform: Platform, cwd: &str) {
    platform.require();
    let mut ways: Vec<Vec<String>> = SECTIONS.map(|section| vec![section.into()]).to_vec();
    ways.push([vec!["protected".into()], host_protections()].concat());
    for way in ways {
        let root = Root::new().program("rights-files");
        let mut args = vec!["/bin/rights-files"];
        args.extend(way.iter().map(String::as_str));
        Run::new(&args).cwd(cwd).same_as_host(platform, &root);
    }
}

#[test]
fn on_ext2() {
    compare(Platform::Kvm, "/work");
}

#[test]
fn on_tmpfs() {
    compare(Platform::Kvm, "/tmp");
}

#[test]
fn on_ext2_under_qemu() {
    compare(Platform::Qemu, "/work");
}

#[test]
fn on_tmpfs_under_qemu() {
    compare(Platform::Qemu, "/tmp");
}

/// The answers to the probes of `rights protected` at `path`, up to the next path.
fn answers<'a>(text: &'a str, user: &str, path: &str) -> Vec<&'a str> {
    let of_user = text.split(&format!("as {user}\n")).nth(1);
    let of_user = of_user.and_then(|text| text.split("as root\n").next());
    let of_user = of_user.unwrap_or_default();
    let at = of_user.find(&format!("{path}: ")).unwrap_or(of_user.len());
    let lines = of_user[at..].lines();
    let lines = lines.map(|line| line.rsplit(" = ").next().unwrap_or_default().trim());
    lines.collect()
}

/// All of it on, which no host need have: links and files that others have laid into shared sticky
/// directories, for the user and for root.
#[test]
fn protections_that_are_on() {
    Platform::Kvm.require();
    let root = Root::new().program("rights-files");
    let run = Run::new(&["/bin/rights-files", "protected", "1", "1", "1", "2"]).cwd("/tmp");
    let finished = run.guest(Platform::Kvm, root.disk());
    finished.must_exit(0);
    let text = finished.text();
    for user in ["user", "root"] {
        // Not through another's link at the end, by whatever call; the link itself is seen.
        let link = answers(&text, user, "p/s1777/link-other");
        let expected = [
            "-1 EACCES",
            "1 EACCES",
            "1 ELOOP",
            "1 EACCES",
            "0",
            "-1 EACCES",
            "9",
            "0",
        ];
        assert_eq!(link[..8], expected, "{user}: {text}");
        // In the middle of a path it is followed; with slashes behind it, it is the end.
        assert_eq!(link[8..10], ["-1 EACCES", "-1 EACCES"], "{user}: {text}");
        // The directory's owner is trusted; what is not shared or not sticky is no matter.
        for trusted in [
            "p/s1777/link-root",
            "p/s0777/link-other",
            "p/s1755/link-other",
        ] {
            assert_eq!(answers(&text, user, trusted)[0], "0", "{user}: {text}");
        }
        for kept in ["file-other", "fifo-other"] {
            let answers = answers(&text, user, &format!("p/s1777/{kept}"));
            assert_eq!(answers[..2], ["1 EACCES", "0"], "{user} {kept}: {text}");
        }
        // Where only the group writes, level 2 keeps files, level 1 leaves fifos.
        let group = |file: &str| answers(&text, user, &format!("p/s1775/{file}"))[0];
        assert_eq!(group("file-other"), "1 EACCES", "{user}: {text}");
        assert_eq!(group("fifo-other"), "0", "{user}: {text}");
    }
}
