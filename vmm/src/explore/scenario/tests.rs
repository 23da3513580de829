use std::os::unix::fs::FileExt;

use super::*;
use crate::explore::row::Named;
use crate::root::Disk;
use crate::root::embedded;

const FULL: &str = r#"
name = "full"
description = "Everything that can be said"

[run]
program = ["/bin/x", "one"]
env = { A = "b", LANG = "de" }
cwd = "/work/d"
memory = "48M"
stdin = "in"

[[root]]
path = "/bin/x"
c = "x.c"
freestanding = true
flags = ["-DONE=1"]

[[root]]
path = "/work/text"
text = "some\n"
mode = "600"

[[root]]
path = "/work/bytes"
seed = 3
size = "5000"

[[root]]
path = "/work/link"
symlink = "bytes"

[[root]]
path = "/work/d"
directory = true

[explore]
policies = ["transparent", "try"]
kinds = ["copy", "fault"]
layers = ["pte", "slot"]
sides = ["target"]
actors = ["ext2"]
calls = ["read", "write"]
from = 1
to = 2
limit = 100

[expect]
status = 3
stdout = "x\n"
stderr = { any = true }
errors = ["EIO", "SIGBUS"]
files = [{ path = "/work/out" }, { path = "/work/text", content = "some\n" }]
"#;

fn problem(text: &str) -> String {
    parse(Path::new("dir/full.toml"), text)
        .unwrap_err()
        .to_string()
}

#[test]
fn everything_can_be_said() {
    let scenario = parse(Path::new("dir/full.toml"), FULL).unwrap();
    assert_eq!(scenario.place, Place::Directory("dir".into()));
    assert_eq!(scenario.run.memory, 48 << 20);
    assert!(scenario.run.env.contains(&("A".into(), "b".into())));
    assert!(scenario.run.env.contains(&("LANG".into(), "de".into())));
    assert_eq!(scenario.root.len(), 5);
    assert_eq!(scenario.root[0].line, 12);
    assert_eq!(scenario.root[1].mode, Some(0o600));
    assert_eq!(
        scenario.root[2].content,
        Content::Generated {
            seed: 3,
            size: 5000
        }
    );
    assert_eq!(
        scenario.explore.policies,
        [CopyPolicy::Transparent, CopyPolicy::Try]
    );
    assert_eq!(scenario.explore.calls, [0, 1]);
    assert_eq!(scenario.expect.files.len(), 2);
    assert_eq!(scenario.expect.stderr, Text::Any);
}

#[test]
fn little_need_be_said() {
    let text = "name = \"full\"\ndescription = \"d\"\n[run]\nprogram = [\"/bin/x\"]\n[expect]\n";
    let scenario = parse(Path::new("full.toml"), text).unwrap();
    assert_eq!(scenario.explore.policies, [CopyPolicy::Try]);
    assert_eq!(scenario.explore.kinds, PointKind::ALL);
    assert_eq!(scenario.explore.layers, [Layer::Pte]);
    assert_eq!(
        (scenario.run.cwd.as_str(), scenario.run.memory),
        ("/work", 64 << 20)
    );
    assert_eq!(scenario.expect.stdout, Text::Same);
}

#[test]
fn problems_name_their_line_and_what_is_expected() {
    for (from, to, said) in [
        (
            "kinds = [\"copy\",",
            "kinds = [\"copies\",",
            "dir/full.toml:38: no kind of point \"copies\": expected copy, fill",
        ),
        (
            "\"slot\"]",
            "\"slots\"]",
            ":39: no layer \"slots\": expected pte, slot, read-only",
        ),
        (
            "\"transparent\",",
            "\"opaque\",",
            ":37: no policy \"opaque\": expected try",
        ),
        ("\"write\"]", "\"wriet\"]", ":42: no Linux call \"wriet\""),
        (
            "\"SIGBUS\"]",
            "\"SIGBU\"]",
            ":51: no error \"SIGBU\": expected EINTR, EIO",
        ),
        (
            "memory = \"48M\"",
            "memory = \"48X\"",
            ":9: \"48X\" is no size",
        ),
        (
            "mode = \"600\"",
            "mode = \"609\"",
            ":21: permissions are octal digits",
        ),
        (
            "limit = 100",
            "limits = 100",
            ":45: unknown field `limits`, expected one of `policies`",
        ),
        ("limit = 100", "limit = -1", ":45: "),
        (
            "symlink = \"bytes\"",
            "symlink = \"bytes\"\ntext = \"\"",
            ":28: an entry of the root is one of text, size",
        ),
        (
            "seed = 3\nsize = \"5000\"",
            "seed = 3",
            ":23: an entry of the root is one of text, size",
        ),
        (
            "seed = 3",
            "flags = [\"-g\"]",
            ":23: freestanding and flags belong to an entry with c",
        ),
        (
            "path = \"/work/link\"",
            "path = \"work/link\"",
            ":28: a path on the root begins with",
        ),
        ("path = \"/work/link\"", "", ":28: an entry needs a path"),
        (
            "from = 1",
            "from = 2",
            ":43: from = 2 is passed before to = 2",
        ),
        (
            "name = \"full\"",
            "name = \"Full\"",
            ":2: a name is of lower case",
        ),
        (
            "name = \"full\"",
            "name = \"other\"",
            ":2: the file is named full, the scenario other",
        ),
        (
            "[\"/bin/x\", \"one\"]",
            "[]",
            ":6: a program's path is missing",
        ),
        ("description = ", "descr = ", ":3: unknown field `descr`"),
        (
            "any = true",
            "any = false",
            ":50: either same = true or any = true",
        ),
        ("[expect]", "[expect", ":47: "),
    ] {
        let bad = FULL.replacen(from, to, 1);
        assert_ne!(bad, FULL, "{from}");
        let problem = problem(&bad);
        assert!(problem.contains(said), "{from} -> {to}: {problem}");
    }
    let missing = problem("name = \"full\"\n[run]\nprogram = [\"x\"]\n[expect]\n");
    assert!(missing.contains("missing field `description`"), "{missing}");
}

#[test]
fn a_root_is_made_and_made_alike() {
    let dir = tempfile::tempdir().unwrap();
    let source = "#ifndef ONE\n#error no flag\n#endif\nvoid _start(void) { for (;;) ; }\n";
    std::fs::write(dir.path().join("x.c"), source).unwrap();
    let scenario = parse(&dir.path().join("full.toml"), FULL).unwrap();
    let cache = dir.path().join("cache");
    let image = scenario.image(&cache).unwrap();
    let compiled = || std::fs::read_dir(&cache).unwrap().count();
    assert_eq!(compiled(), 1);
    let disk = image.disk().unwrap();
    let read = |path: &str| embedded::read(&disk.file, path).unwrap();
    assert_eq!(read("/work/text").unwrap(), b"some\n");
    assert_eq!(read("/work/bytes").unwrap(), generated(3, 5000));
    assert!(read("/bin/x").unwrap().starts_with(b"\x7fELF"));
    assert_eq!(read("/work/nothing"), None);
    let files = scenario.expect.files_of(&disk.file).unwrap();
    assert_eq!(files["/work/out"], None);
    // A run's disk is its own.
    disk.file.write_all_at(&[0xff; 4096], 0).unwrap();
    let again = scenario.image(&cache).unwrap();
    assert_eq!(compiled(), 1);
    let bytes = |disk: Disk| {
        let mut bytes = vec![0; disk.file.metadata().unwrap().len() as usize];
        disk.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    assert!(bytes(image.disk().unwrap()) == bytes(again.disk().unwrap()));
    // A header may be what changed.
    std::fs::write(dir.path().join("x.h"), "").unwrap();
    scenario.image(&cache).unwrap();
    assert_eq!(compiled(), 2);
    std::fs::write(dir.path().join("x.c"), "nonsense").unwrap();
    let error = format!("{:#}", scenario.image(&cache).unwrap_err());
    assert!(error.contains("scenario full, line 12: cc x.c"), "{error}");
}

#[test]
fn scenarios_are_found_by_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("full.toml"), FULL).unwrap();
    assert_eq!(find(dir.path(), "full").unwrap().name, "full");
    let problem = find(dir.path(), "empty").unwrap_err().to_string();
    assert!(
        problem.contains("no scenario empty: there are full"),
        "{problem}"
    );
}

#[test]
fn generated_bytes_are_known() {
    assert_eq!(generated(1, 3).len(), 3);
    assert_eq!(
        generated(1, 100)[..8],
        abi::trace::random(1, 0).to_le_bytes()
    );
    assert_ne!(generated(1, 4096), generated(2, 4096));
}
