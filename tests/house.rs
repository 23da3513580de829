//! Rules of the tree that are tests: none that did not run may count as one that passed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where tests are.
const PLACES: [&str; 7] = [
    "abi",
    "guest-kernel",
    "libexec",
    "servers",
    "tests",
    "vmm/src",
    "vmm/tests",
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        let is_source = |path: &Path| path.extension().is_some_and(|e| e == "rs" || e == "c");
        match path.is_dir() {
            true => sources(&path, found),
            false if is_source(&path) => found.push(path),
            false => {}
        }
    }
}

/// What a test that leaves itself out has in its text: it says so, or the harness does.
fn leaves_out(line: &str) -> bool {
    let line = line.to_lowercase();
    let said = ["skipped", "skipping", "not tested", "skip:"];
    let quoted = |text: &str| line.split('"').skip(1).step_by(2).any(|s| s.contains(text));
    said.into_iter().any(quoted) || line.trim_start().starts_with(concat!("#[", "ignore"))
}

#[test]
fn no_test_leaves_itself_out() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for place in PLACES {
        sources(&tree.join(place), &mut files);
    }
    assert!(files.len() > 200, "only {} sources", files.len());
    let this = Path::new(file!()).file_name();
    let mut found = Vec::new();
    for path in files.iter().filter(|path| path.file_name() != this) {
        let text = fs::read_to_string(path).expect("a source");
        let lines = (1..).zip(text.lines()).filter(|(_, line)| leaves_out(line));
        found.extend(lines.map(|(n, line)| format!("{}:{n}: {}", path.display(), line.trim())));
    }
    assert!(
        found.is_empty(),
        "what the machine lacks fails the test that needs it:\n{}",
        found.join("\n")
    );
    // And the search finds what it is for.
    assert!(leaves_out(
        "    eprintln!(\"skipped: no usable /dev/kvm\");"
    ));
    assert!(leaves_out("    #[ignore = \"slow\"]"));
    assert!(!leaves_out("    let skipped = start - self.start;"));
}

/// A file of tests that the manifest does not name never runs.
#[test]
fn every_file_of_tests_is_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = fs::read_to_string(root.join("vmm/Cargo.toml")).expect("the manifest");
    let missing: Vec<_> = fs::read_dir(root.join("tests"))
        .expect("tests")
        .map(|entry| entry.expect("an entry").file_name())
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(".rs") && !manifest.contains(&format!("\"../tests/{name}\"")))
        .collect();
    assert!(
        missing.is_empty(),
        "no target in vmm/Cargo.toml: {missing:?}"
    );
}

/// tests/README.md has a line for each file of tests, and none for others.
#[test]
fn every_file_of_tests_has_a_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("tests/README.md")).expect("tests/README.md");
    let files = text.split("## Files").nth(1).expect("the files");
    let mut listed: Vec<&str> = files
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let mut there = Vec::new();
    for (directory, prefix) in [("tests", ""), ("vmm/tests", "vmm/tests/")] {
        let names = fs::read_dir(root.join(directory)).expect("tests");
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let sources = names.filter(|name| name.ends_with(".rs"));
        there.extend(sources.map(|name| format!("{prefix}{name}")));
    }
    listed.sort_unstable();
    there.sort_unstable();
    assert_eq!(listed, there, "tests/README.md and the files of tests");
}

/// Blocks, functions, implementations and attributes of a source that the compiler takes on trust.
fn unsafe_in(text: &str) -> usize {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let starts = [
        "unsafe {",
        "unsafe fn",
        "unsafe impl",
        "unsafe trait",
        "unsafe extern",
        "unsafe(",
    ];
    code.map(|line| {
        starts
            .iter()
            .map(|start| line.matches(start).count())
            .sum::<usize>()
    })
    .sum()
}

/// `unsafe` stands where docs/unsafe.md says, and as often; each block names its invariant (clippy's
/// undocumented_unsafe_blocks).
#[test]
fn unsafe_code_is_where_the_list_has_it() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let list = fs::read_to_string(tree.join("docs/unsafe.md")).expect("docs/unsafe.md");
    let mut wanted = Vec::new();
    for line in list.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let count: usize = cells[2].parse().expect("a number");
        assert!(cells[3].len() > 20, "no reason: {line}");
        wanted.push((cells[1].trim_matches('`').to_owned(), count));
    }
    let mut files = Vec::new();
    for place in [
        "abi/src",
        "guest-kernel/src",
        "libexec/src",
        "servers",
        "vmm/src",
    ] {
        sources(&tree.join(place), &mut files);
    }
    let mut found: Vec<_> = files
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .filter(|path| !path.components().any(|part| part.as_os_str() == "tests"))
        .filter_map(|path| {
            let count = unsafe_in(&fs::read_to_string(path).expect("a source"));
            let path = path.strip_prefix(&tree).expect("of the tree");
            (count > 0).then(|| (path.display().to_string(), count))
        })
        .collect();
    found.sort();
    wanted.sort();
    assert_eq!(
        found, wanted,
        "docs/unsafe.md lists every file with unsafe code"
    );
    assert_eq!(
        unsafe_in("  unsafe { a }\n// unsafe { b }\n#[unsafe(no_mangle)] unsafe extern {"),
        3
    );
}

/// Each crate from outside has a reason, and each reason a crate.
#[test]
fn every_dependency_has_its_reason() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = fs::read_to_string(tree.join("Cargo.toml")).expect("the manifest");
    let start = manifest
        .find("[workspace.dependencies]")
        .expect("dependencies");
    let section = manifest[start..].split("\n[").next().expect("a section");
    let mut used: Vec<&str> = section
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("path = "))
        .filter_map(|line| Some(line.split_once('=')?.0.trim()))
        .collect();
    let list = fs::read_to_string(tree.join("docs/dependencies.md")).expect("the list");
    let rows = list
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Crate"));
    let cells = rows
        .filter_map(|line| line.split('|').nth(1))
        .filter(|cell| !cell.contains("---"));
    let mut listed: Vec<&str> = cells
        .flat_map(|cell| cell.split(','))
        .map(str::trim)
        .collect();
    used.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, used, "docs/dependencies.md and the root Cargo.toml");
}

/// Whether a crate under the licence `expression` may be used where those in `allowed` may: one of its alternatives
/// (`OR`, or `/` in old manifests) is allowed altogether.
fn may_use(expression: &str, allowed: &[String]) -> bool {
    let words = expression.replace('/', " OR ");
    let words = words.replace('(', " ( ").replace(')', " ) ");
    let mut words = words.split_whitespace().peekable();
    let may = either(&mut words, allowed);
    may && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut may = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        may |= both(words, allowed);
    }
    may
}

fn both(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut may = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        may &= one(words, allowed);
    }
    may
}

fn one(words: &mut Words<'_>, allowed: &[String]) -> bool {
    match words.next() {
        Some("(") => {
            let may = either(words, allowed);
            words.next() == Some(")") && may
        }
        Some(name) => {
            let exception = words.next_if_eq(&"WITH").and_then(|_| words.next());
            exception.is_none() && allowed.iter().any(|allowed| allowed == name)
        }
        None => false,
    }
}

/// Every crate is one that the project's licences allow (deny.toml), and comes from crates.io; its own have both
/// licences and are not for crates.io.
#[test]
fn licences_and_sources_are_the_ones_that_are_allowed() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let rules = fs::read_to_string(tree.join("deny.toml")).expect("deny.toml");
    let rules: toml::Table = toml::from_str(&rules).expect("TOML");
    let list = |section: &str, key: &str| -> Vec<String> {
        let list = rules[section][key].as_array().expect("a list");
        let texts = list.iter().map(|text| text.as_str().expect("a text"));
        texts.map(String::from).collect()
    };
    let allowed = list("licenses", "allow");
    let registries = list("sources", "allow-registry");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .arg("--filter-platform=x86_64-unknown-linux-gnu")
        .current_dir(&tree)
        .output()
        .expect("cargo");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {said}");
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = facts["packages"].as_array().expect("packages");
    assert!(packages.len() > 100, "{}", packages.len());
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let licence = package["license"].as_str().unwrap_or_default();
        match package["source"].as_str() {
            Some(source) => {
                let ours = registries
                    .iter()
                    .any(|r| *source == format!("registry+{r}"));
                if !ours || !may_use(licence, &allowed) {
                    wrong.push(format!("{name}: {licence:?}, from {source}"));
                }
            }
            None if licence == "MIT OR Apache-2.0"
                && package["publish"] == serde_json::json!([]) => {}
            None => wrong.push(format!("{name} of this workspace: {licence:?}, publish")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let may = |expression| may_use(expression, &allowed);
    assert!(may("(MIT OR GPL-3.0) AND Unicode-3.0") && may("GPL-2.0/MIT"));
    assert!(!may("MIT AND GPL-3.0") && !may("Apache-2.0 WITH LLVM-exception"));
    assert!(!may("") && !may("(MIT") && !may("MIT MIT"));
}

/// Files of the project that have text, but what is built and what belongs to version control.
fn texts(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).expect("a directory");
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        let kinds = ["rs", "c", "h", "md", "toml", "sh"];
        match path.is_dir() {
            true if name == ".git" || name.starts_with("target") || name == "absentia-report" => {}
            true => texts(&path, found),
            false
                if path
                    .extension()
                    .is_some_and(|e| kinds.iter().any(|kind| e == *kind)) =>
            {
                found.push(path);
            }
            false => {}
        }
    }
}

/// Where a text cites a document: paths that begin with `docs/`, `decision NNN`, and in documents what is linked.
fn cited(text: &str, is_document: bool) -> Vec<String> {
    let mut cited = Vec::new();
    let is_path = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    for (at, _) in text.match_indices("docs/") {
        let before = text[..at].chars().next_back();
        // A part of a longer path has a place of its own, and so does another project's.
        if before.is_none_or(|c| !is_path(c)) || text[..at].ends_with("../") {
            let path: String = text[at..].chars().take_while(|&c| is_path(c)).collect();
            cited.push(path.trim_end_matches(['.', '/', '-']).into());
        }
    }
    for (at, word) in text.match_indices("ecision ") {
        let number: String = text[at + word.len()..].chars().take(3).collect();
        if number.len() == 3 && number.bytes().all(|b| b.is_ascii_digit()) {
            cited.push(format!("docs/decisions/{number}-"));
        }
    }
    if is_document {
        for (at, _) in text.match_indices("](") {
            let target: String = text[at + 2..].chars().take_while(|&c| c != ')').collect();
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                cited.push(format!("./{file}"));
            }
        }
    }
    cited
}

/// What is cited is there: no text sends its reader to a document that the project does not have.
#[test]
fn documents_that_are_cited_exist() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    texts(&tree, &mut files);
    let mut decisions: Vec<String> = Vec::new();
    for entry in fs::read_dir(tree.join("docs/decisions")).expect("decisions") {
        let name = entry.expect("an entry").file_name();
        decisions.push(format!("docs/decisions/{}", name.to_string_lossy()));
    }
    let this = Path::new(file!()).file_name();
    let (mut wrong, mut count) = (Vec::new(), 0);
    let mut unasked = decisions.clone();
    for file in files.iter().filter(|file| file.file_name() != this) {
        let text = fs::read_to_string(file).expect("a text");
        let document = file.extension().is_some_and(|e| e == "md");
        for path in cited(&text, document) {
            count += 1;
            if !document {
                unasked.retain(|decision| *decision != path);
            }
            let there = match path.strip_prefix("./") {
                Some(path) => file.parent().expect("a directory").join(path).exists(),
                None => tree.join(&path).exists() || decisions.iter().any(|d| d.starts_with(&path)),
            };
            if !there {
                wrong.push(format!("{}: {path}", file.display()));
            }
        }
        // A document by name alone has no place that could be looked at.
        let named = ["semantics, section", "blueprint"];
        wrong.extend(
            named
                .iter()
                .filter(|name| text.contains(*name))
                .map(|name| format!("{}: {name:?} is of no document here", file.display())),
        );
    }
    assert!(count > 200, "only {count} citations");
    assert!(unasked.is_empty(), "no code cites {unasked:?}");
    assert!(
        wrong.is_empty(),
        "cited and not there:\n{}",
        wrong.join("\n")
    );
    assert_eq!(
        cited("//! docs/a.md, see decision 007 ../docs/b.md.", false),
        ["docs/a.md", "docs/b.md", "docs/decisions/007-"]
    );
    assert_eq!(cited("[x](y.md#z) [a](https://b)", true), ["./y.md"]);
}

/// The modules of a crate by floors, the highest first, as its root declares them: a comment begins a floor.
fn floors(root: &str) -> Vec<Vec<&str>> {
    let mut floors: Vec<Vec<&str>> = Vec::new();
    let mut fresh = true;
    for line in root.lines() {
        let module = line.trim_start_matches("pub ").strip_prefix("mod ");
        match module.and_then(|name| name.strip_suffix(';')) {
            Some("tests") => continue,
            Some(name) if fresh || floors.is_empty() => floors.push(vec![name]),
            Some(name) => floors.last_mut().expect("a floor").push(name),
            None if line.starts_with("// ") => fresh = true,
            None => continue,
        }
        fresh &= module.is_none();
    }
    floors
}

/// The modules of the crate that its source names: in `crate::name`, in `use crate::{name, ...}`, by its macro.
fn named<'a>(source: &str, modules: &[&'a str]) -> Vec<&'a str> {
    let code = source.split("#[cfg(test)]").next().expect("code");
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let word = |text: &str, name: &str| {
        let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| word == name)
    };
    let lists = code.split("use crate::{").skip(1);
    let lists: Vec<&str> = lists.filter_map(|rest| rest.split(';').next()).collect();
    let paths: Vec<&str> = code.split("crate::").skip(1).collect();
    let used = |name: &&&str| {
        let is = |rest: &&str| {
            let rest = rest.strip_prefix(**name);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        paths.iter().any(is)
            || lists.iter().any(|list| word(list, name))
            || **name == "log" && code.contains("fatal!")
    };
    modules.iter().filter(used).copied().collect()
}

/// A module uses only those on lower floors: what is above can be changed without a look below, and the crate can be
/// read from the top down.
#[test]
fn modules_stand_on_floors() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let crates = [
        ("guest-kernel/src", "main.rs"),
        ("libexec/src", "lib.rs"),
        ("servers/fs/ext2/src", "lib.rs"),
        ("servers/vfs/src", "lib.rs"),
        ("vmm/src", "lib.rs"),
    ];
    for (place, root) in crates {
        let place = tree.join(place);
        let text = fs::read_to_string(place.join(root)).expect("the root");
        let floors = floors(&text);
        let all: Vec<&str> = floors.iter().flatten().copied().collect();
        assert!(floors.len() > 2, "{floors:?}");
        let floor = |name: &str| floors.iter().position(|floor| floor.contains(&name));
        let mut files = Vec::new();
        sources(&place, &mut files);
        let (mut uses, mut wrong) = (0, Vec::new());
        for path in files {
            let inside = path.strip_prefix(&place).expect("of the crate");
            let first = inside.components().next().expect("a name");
            let module = Path::new(&first).with_extension("").display().to_string();
            let Some(own) = floor(module.as_str()) else {
                // Tests, and a binary beside the library, stand above all.
                let above = ["tests", "server", "main"].contains(&module.as_str());
                let known = above || inside == Path::new(root);
                assert!(known, "{place:?}: {} has no floor", inside.display());
                continue;
            };
            let source = fs::read_to_string(&path).expect("a source");
            for name in named(&source, &all) {
                uses += 1;
                if name != module && floor(name) <= Some(own) {
                    wrong.push(format!("{} uses {name}", inside.display()));
                }
            }
        }
        assert!(uses > all.len() / 2, "{place:?}: {uses} uses seen");
        assert!(
            wrong.is_empty(),
            "on the same floor or a higher one: {wrong:#?}"
        );
    }
    assert_eq!(
        floors("// A\nmod a;\npub mod b;\n\n// C\nmod c;\n"),
        [vec!["a", "b"], vec!["c"]]
    );
    let source =
        "use crate::a::X;\nuse crate::{b, c as d};\nfn f() { crate::ee::g() }\n// crate::z\n";
    assert_eq!(
        named(source, &["a", "b", "c", "d2", "e", "z"]),
        ["a", "b", "c"]
    );
}

/// The server that docs/server.md shows is the one that is built.
/// What is in which word of a message only the declarations in abi/ know, and the registers it travels in: those of the
/// calling convention in rt, on a processor and in the kernel's state of one.
#[test]
fn words_of_messages_have_names() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for directory in ["servers", "libexec", "guest-kernel"] {
        sources(&tree.join(directory), &mut found);
    }
    let is_tests = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    let known = tree.join("servers/rt/src/ipc.rs");
    found.retain(|path| *path != known && !is_tests(path) && !path.ends_with("tests.rs"));
    assert!(found.len() > 100, "{} sources", found.len());
    for path in found {
        let text = fs::read_to_string(&path).expect("a source");
        let line = text.lines().find(|line| line.contains(".words["));
        assert_eq!(line, None, "{}", path.display());
    }
}

#[test]
fn the_server_that_is_explained_is_the_one_that_runs() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(tree.join("docs/server.md")).expect("docs/server.md");
    let source = tree.join("servers/drivers/hello/src/main.rs");
    let source = fs::read_to_string(source).expect("its source");
    let shown = page
        .split("```rust\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    assert_eq!(shown, Some(source.as_str()));
}

/// The hops of docs/tour.md: twenty, and each function is in its file.
#[test]
fn the_tour_leads_somewhere() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tour = fs::read_to_string(tree.join("docs/tour.md")).expect("docs/tour.md");
    let mut links = 0;
    for link in tour.split("[`").skip(1) {
        let (name, rest) = link.split_once("`](../").expect("a link to a source");
        let (path, _) = rest.split_once(')').expect("its end");
        let source = fs::read_to_string(tree.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        let there = ["fn ", "const "].iter().any(|kind| {
            let declared = format!("{kind}{name}");
            source
                .split(&declared)
                .skip(1)
                .any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        });
        assert!(there, "{path} has no {name}");
        links += 1;
    }
    let hops = |n: usize| {
        tour.lines()
            .any(|line| line.starts_with(&format!("{n}. [`")))
    };
    assert!(
        (1..=20).all(hops) && !hops(21) && links > 20,
        "{links} links"
    );
}
