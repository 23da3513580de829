//! docs/protocols.md is what the declarations say. `BLESS=1 cargo test -p absentia-abi` writes it.

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
    page
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
