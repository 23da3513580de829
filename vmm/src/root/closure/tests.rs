use super::*;
use std::process::Command;

/// A host's root with what is compiled onto it.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Host {
        let host = Host(tempfile::tempdir().unwrap());
        for dir in ["app/bin", "app/lib", "deep", "lib", "lib64"] {
            std::fs::create_dir_all(host.0.path().join(dir)).unwrap();
        }
        std::fs::copy(
            "/lib64/ld-linux-x86-64.so.2",
            host.0.path().join("lib64/ld-linux-x86-64.so.2"),
        )
        .expect("the tests need glibc");
        host
    }

    /// Compiles a shared object or, under `bin`, a program.
    fn compile(&self, path: &str, source: &str, options: &[&str]) {
        let out = self.0.path().join(path);
        let input = out.with_extension("c");
        std::fs::write(&input, source).unwrap();
        let mut cc = Command::new("cc");
        cc.arg("-o").arg(&out).arg(&input);
        cc.args(["-nostdlib", "-fPIC"]).current_dir(self.0.path());
        if !path.contains("bin/") {
            cc.arg("-shared");
        }
        let output = cc.args(options).output().expect("the tests need cc");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    fn closure(&self, path: &str, library_path: Option<&str>) -> Result<Closure, Problem> {
        let content = std::fs::read(on(self.0.path(), path)).unwrap();
        of(self.0.path(), path, &content, library_path)
    }
}

const START: &str = "void _start(void) {}";

fn paths(closure: &Closure) -> Vec<&str> {
    closure.files.iter().map(|(path, _)| &**path).collect()
}

#[test]
fn libraries_are_found_as_the_linker_finds_them() {
    let host = Host::new();
    // The program finds liba beside itself; liba finds libb by the program's RPATH, which is
    // inherited; libb's RUNPATH finds libc in an odd place; and each only once.
    host.compile("deep/libc.so", "int c;", &["-Wl,-soname,libc.so"]);
    let needs_c = [
        "deep/libc.so",
        "-Wl,--no-as-needed",
        "-Wl,-rpath,/deep/../deep",
    ];
    let options = [&needs_c[1..], &needs_c[..1], &["-Wl,--enable-new-dtags"]].concat();
    host.compile(
        "app/lib/libb.so",
        "int b;",
        &[&options[..], &["-Wl,-soname,libb.so"]].concat(),
    );
    let needs_b = [
        "-Wl,--no-as-needed",
        "app/lib/libb.so",
        "-Wl,-soname,liba.so",
    ];
    host.compile("app/lib/liba.so", "int a;", &needs_b);
    host.compile(
        "app/bin/program",
        START,
        &[
            "-Wl,--no-as-needed",
            "app/lib/liba.so",
            "-Wl,--disable-new-dtags",
            "-Wl,-rpath,$ORIGIN/../lib",
            "-Wl,-rpath-link,app/lib:deep",
        ],
    );
    let closure = host.closure("/app/bin/program", None).unwrap();
    let expected = [
        "/lib64/ld-linux-x86-64.so.2",
        "/app/lib/liba.so",
        "/app/lib/libb.so",
        "/deep/libc.so",
    ];
    assert_eq!(paths(&closure), expected);
    assert!(closure.directories.contains(&"app/bin".to_string()));
    assert!(closure.directories.contains(&"deep".to_string()));
    assert_eq!(closure.report.len(), 4);
}

#[test]
fn the_environment_and_default_directories_are_searched() {
    let host = Host::new();
    host.compile("lib/liba.so", "int a;", &["-Wl,-soname,liba.so"]);
    let needs = ["-Wl,--no-as-needed", "lib/liba.so"];
    host.compile("app/bin/program", START, &needs);
    let found = |library_path| -> Vec<String> {
        let closure = host.closure("/app/bin/program", library_path).unwrap();
        paths(&closure)[1..].iter().map(|p| p.to_string()).collect()
    };
    assert_eq!(found(None), ["/lib/liba.so"]);
    host.compile("deep/liba.so", "int a;", &["-Wl,-soname,liba.so"]);
    assert_eq!(found(Some("/none:/deep")), ["/deep/liba.so"]);
    // A file that is no library is passed over.
    std::fs::write(host.0.path().join("deep/liba.so"), "text").unwrap();
    assert_eq!(found(Some("/deep")), ["/lib/liba.so"]);
}

#[test]
fn what_is_missing_is_named() {
    let host = Host::new();
    host.compile("lib/liba.so", "int a;", &["-Wl,-soname,liba.so"]);
    host.compile(
        "app/bin/program",
        START,
        &["-Wl,--no-as-needed", "lib/liba.so"],
    );
    std::fs::remove_file(host.0.path().join("lib/liba.so")).unwrap();
    let problem = host.closure("/app/bin/program", None).unwrap_err();
    assert!(problem.to_string().contains("liba.so"), "{problem}");
    std::fs::remove_file(host.0.path().join("lib64/ld-linux-x86-64.so.2")).unwrap();
    let problem = host.closure("/app/bin/program", None).unwrap_err();
    let name = "/lib64/ld-linux-x86-64.so.2".to_string();
    assert_eq!(problem, Problem::NoInterpreter(name));
}

#[test]
fn a_program_behind_links_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("real"), "x").unwrap();
    std::os::unix::fs::symlink("real", at("second")).unwrap();
    std::os::unix::fs::symlink(at("./second"), at("first")).unwrap();
    let (file, chain) = links(&at("first"));
    assert_eq!(file, at("real"));
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1], (at("second"), "real".into()));
    // A loop ends.
    std::os::unix::fs::symlink("loop", at("loop")).unwrap();
    assert_eq!(links(&at("loop")).1.len(), LINKS_MAX);
}
