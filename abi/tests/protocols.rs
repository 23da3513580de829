//! docs/protocols.md and the table in docs/architecture.md are what the declarations say. `BLESS=1 cargo test -p
//! absentia-abi` writes them.

use abi::proto::PROTOCOLS;
use abi::role::{Role, Roles};
use abi::senders::Mode;
use std::fmt::Write;

fn roles(roles: Roles) -> String {
    if roles == Roles::SERVICES {
        return "every service".into();
    }
    let (mut names, mut roles) = (Vec::new(), roles.bits());
    if roles & Roles::PEERS.bits() == Roles::PEERS.bits() {
        names.push("every file system and driver");
        roles &= !Roles::PEERS.bits();
    }
    let all = Role::ALL.into_iter();
    names.extend(
        all.filter(|&role| roles >> role as u32 & 1 != 0)
            .map(Role::name),
    );
    names.join(", ")
}

fn parts(parts: &[(&str, &str)]) -> String {
    let part = |(name, what): &(&str, &str)| format!("`{name}: {what}`");
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

fn page() -> String {
    let mut page = String::from(
        "# Who may say what\n\n\
         Made from the declarations in `abi/src/proto/` by `BLESS=1 cargo test -p absentia-abi`. What is\n\
         not in the list is refused ([decision 014](decisions/014-roles-in-endpoints.md)); no message is\n\
         a program's to send. *call* is answered before the server does anything else, *wait* when it has what it\n\
         takes, *ask* is posted and answered by a message with the same transaction number, *post* is not answered\n\
         ([decision 028](decisions/028-interfaces.md)).\n",
    );
    for protocol in PROTOCOLS {
        let (name, servers) = (protocol.name, roles(protocol.servers));
        let _ = write!(
            page,
            "\n## `{name}`: to {servers}\n\n| Message | Kind | How | Senders | Says | Answered with |\n| --- | --- | --- | --- | --- | --- |\n"
        );
        for rule in protocol.rules {
            let how = match rule.mode {
                Mode::Call => "call",
                Mode::Wait => "wait",
                Mode::Post => "post",
                Mode::Ask => "ask",
            };
            let (name, kind) = (rule.name, rule.kind);
            let senders = roles(rule.senders);
            let (says, answer) = (parts(rule.arguments), parts(rule.answer));
            let _ = writeln!(
                page,
                "| `{name}` | {kind:#06x} | {how} | {senders} | {says} | {answer} |"
            );
        }
    }
    page += "\n## Kernel calls\n\nFrom `abi/src/kernel/calls.rs`. Each but `Null` and `Yield` needs its bit in the \
             caller's privileges. `In` is memory that the kernel reads, `Out` what it writes.\n\n\
             | Call | Number | Says | Answered with |\n| --- | --- | --- | --- |\n";
    for call in abi::kernel::calls::ALL {
        let (name, number, answer) = (call.name, call.number, call.answer);
        let says = parts(call.arguments);
        let _ = writeln!(page, "| `{name}` | {number:#05x} | {says} | `{answer}` |");
    }
    page
}

#[test]
fn kernel_calls_have_numbers_and_bits_of_their_own() {
    let numbers: Vec<u64> = abi::kernel::calls::ALL
        .iter()
        .map(|call| call.number)
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:x?}");
    assert!(numbers.iter().all(|number| (0x100..0x140).contains(number)));
}

#[test]
fn the_page_of_protocols_is_what_the_declarations_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocols.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, page()).expect("writing the page");
    }
    let written = std::fs::read_to_string(path).expect("docs/protocols.md");
    assert!(
        written == page(),
        "docs/protocols.md is not what abi/src/proto says: BLESS=1 cargo test -p absentia-abi"
    );
}

/// How many messages each role may send to each server: calls and posts.
fn table() -> String {
    let mut head = String::from("| From | ");
    let mut rows: Vec<String> = Role::ALL[1..]
        .iter()
        .map(|role| format!("| {} |", role.name()))
        .collect();
    for protocol in PROTOCOLS {
        let _ = write!(head, "to `{}` | ", protocol.name);
        for (row, &role) in rows.iter_mut().zip(&Role::ALL[1..]) {
            // Nobody sends to himself.
            let rules = match protocol.servers == Roles::of(role) {
                true => &[],
                false => protocol.rules,
            };
            let count = |called| {
                let sent = rules.iter().filter(|rule| rule.senders.contains(role));
                sent.filter(|rule| rule.mode.is_call() == called).count()
            };
            let _ = match (count(true), count(false)) {
                (0, 0) => write!(row, " |"),
                (calls, 0) => write!(row, " {calls} called |"),
                (0, posts) => write!(row, " {posts} posted |"),
                (calls, posts) => write!(row, " {calls} called, {posts} posted |"),
            };
        }
    }
    let lines = "| --- ".repeat(PROTOCOLS.len() + 1);
    format!("{}\n{lines}|\n{}\n", head.trim_end(), rows.join("\n"))
}

/// Who calls waits for the reply: a circle of calls would be a deadlock. This order is in docs/architecture.md.
#[test]
fn calls_make_no_circle() {
    const ORDER: [Role; 9] = [
        Role::Proc,
        Role::Rs,
        Role::Pm,
        Role::Vfs,
        Role::FileSystem,
        Role::Console,
        Role::Disk,
        Role::Memory,
        Role::Vm,
    ];
    let names = ORDER.map(Role::name).join(", ");
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/architecture.md");
    let text = std::fs::read_to_string(text).expect("docs/architecture.md");
    assert!(text.contains(&format!("    {names}\n")), "{names}");
    for protocol in PROTOCOLS {
        for rule in protocol.rules.iter().filter(|rule| rule.mode.is_call()) {
            for (place, role) in ORDER.into_iter().enumerate() {
                // A process does not call itself.
                let backwards = |to: &Role| protocol.servers.contains(*to);
                let wrong = ORDER[..place].iter().copied().find(backwards);
                assert!(
                    !rule.senders.contains(role) || wrong.is_none(),
                    "{role:?} may call {} of {wrong:?}, which may call it in turn",
                    rule.name
                );
            }
        }
    }
}

#[test]
fn the_table_of_who_calls_whom_is_what_the_declarations_say() {
    const MARKS: [&str; 2] = ["<!-- table -->\n", "<!-- end -->"];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/architecture.md");
    let text = std::fs::read_to_string(path).expect("docs/architecture.md");
    let (front, rest) = text.split_once(MARKS[0]).expect("the table's start");
    let (written, back) = rest.split_once(MARKS[1]).expect("the table's end");
    if std::env::var_os("BLESS").is_some() {
        let text = [front, MARKS[0], &table(), MARKS[1], back].concat();
        return std::fs::write(path, text).expect("writing the table");
    }
    assert!(
        written == table(),
        "docs/architecture.md is not what abi/src/proto says: BLESS=1 cargo test -p absentia-abi"
    );
}
