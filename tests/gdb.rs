//! A machine under gdb: the protocol itself, and gdb.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use abi::policy::CopyPolicy;
use absentia_vmm::explore::run::{Finish, Player, Stage};
use absentia_vmm::explore::scenario::{self, Scenario};
use absentia_vmm::gdb::{self, Served};
use absentia_vmm::inject::Plan;
use common::Platform;

fn scenario() -> Scenario {
    Platform::Kvm.require();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    scenario::find(&directory, "d1-read").unwrap_or_else(|problem| panic!("{problem}"))
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("scenarios")
}

fn started<'a>(scenario: &'a Scenario, cache: &'a Path) -> (Player, u64) {
    let stage = Stage {
        scenario,
        policy: CopyPolicy::Try,
        gate: None,
        sabotage: String::new(),
        cache,
        emulated: false,
        allocations: false,
    };
    let mut player = Player::new(&stage, &Default::default(), false).expect("a machine");
    let first = player.start().expect("the program");
    (player, first)
}

/// A run under a client; the hash of the same run without one, what it ended with, and what
/// the client brought back. The fault has no effect, so that both do the same.
fn served<T: Send + 'static>(
    client: impl FnOnce(SocketAddr) -> T + Send + 'static,
) -> (u64, Option<Served>, T) {
    let (scenario, cache) = (scenario(), cache());
    let (mut plain, first) = started(&scenario, &cache);
    let hash = plain.finish().expect("a run").hash;
    let (mut player, _) = started(&scenario, &cache);
    let token = format!("d1-read@try+{}.t9999.pte~first", first + 20);
    let plan: Plan = token.parse().expect("a token");
    let listener = gdb::listen(0).expect("a port");
    let address = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || client(address));
    let served = gdb::serve(&mut player, &plan, &listener).expect("a session");
    (hash, served, client.join().expect("the client"))
}

struct Client(TcpStream);

impl Client {
    fn new(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .unwrap();
        Client(stream)
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, |sum, byte| sum.wrapping_add(byte));
        write!(self.0, "${packet}#{sum:02x}").unwrap();
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("an answer");
        byte[0]
    }

    /// The next packet, run lengths expanded.
    fn receive(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut text = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                b'*' => {
                    let times = self.byte() - 29;
                    let last = *text.last().unwrap();
                    text.extend(std::iter::repeat_n(last, times.into()));
                }
                byte => text.push(byte),
            }
        }
        self.byte();
        self.byte();
        self.0.write_all(b"+").unwrap();
        String::from_utf8(text).unwrap()
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.receive()
    }

    fn monitor(&mut self, command: &str) -> String {
        let hex: String = command.bytes().map(|b| format!("{b:02x}")).collect();
        self.send(&format!("qRcmd,{hex}"));
        let mut said = String::new();
        loop {
            match self.receive() {
                packet if packet == "OK" => return said,
                packet => said += &String::from_utf8_lossy(&bytes(&packet[1..])),
            }
        }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Thread numbers with their descriptions.
fn threads(client: &mut Client) -> Vec<(String, String)> {
    let list = client.ask("qfThreadInfo");
    let ids = list[1..].split(',').map(str::to_string);
    ids.map(|id| {
        let info = bytes(&client.ask(&format!("qThreadExtraInfo,{id}")));
        (id, String::from_utf8(info).unwrap())
    })
    .collect()
}

fn must_be_the_same(hash: u64, served: Option<Served>) {
    let served = served.expect("an end");
    assert!(matches!(served.ended.finish, Finish::Off { .. }));
    assert_eq!(served.ended.hash, hash);
    assert_eq!(served.applied.len(), 1);
}

#[test]
fn a_client_looks_and_goes_on() {
    let (hash, served, ()) = served(|address| {
        let client = &mut Client::new(address);
        client.ask("qSupported:multiprocess+;swbreak+");
        let threads = threads(client);
        assert_eq!(threads[0].1, "kernel: the vCPU as it stands");
        let of = |name: &str| {
            let thread = threads.iter().find(|t| t.1.starts_with(name));
            thread.unwrap_or_else(|| panic!("{name} in {threads:?}"))
        };
        assert!(of("d1-read").1.contains(": "), "{threads:?}");
        for (id, _) in &threads {
            assert_eq!(client.ask(&format!("Hg{id}")), "OK");
            // All registers, floating point unavailable.
            let registers = client.ask("g");
            assert_eq!(registers.len(), 0x218 * 2);
            assert!(registers.ends_with('x'), "{registers}");
        }
        // The program's text starts with an ELF header, VM's and the kernel's memory differ.
        let program = of("d1-read").0.clone();
        client.ask(&format!("Hg{program}"));
        let stack = bytes(&client.ask("g")[7 * 16..8 * 16]);
        let stack = u64::from_le_bytes(stack.try_into().unwrap());
        let words = client.ask(&format!("m{stack:x},10"));
        assert_eq!(words.len(), 32, "{words}");
        // What is written is read, and put back.
        assert_eq!(client.ask(&format!("M{stack:x},4:01020304")), "OK");
        assert_eq!(client.ask(&format!("m{stack:x},4")), "01020304");
        assert_eq!(client.ask(&format!("M{stack:x},10:{words}")), "OK");
        for nowhere in ["m0,10", "mffffffffffffff00,ffff", "m7fffffffffff,ffffffff"] {
            assert!(client.ask(nowhere).starts_with('E'), "{nowhere}");
        }
        // No breakpoint: it must not be written into memory instead.
        assert!(client.ask("Z0,400000,1").starts_with('E'));

        let waits = client.monitor("waits");
        assert!(waits.contains("waits for"), "{waits}");
        let plan = client.monitor("plan");
        assert!(plan.contains("comes next"), "{plan}");
        let here = client.monitor("points 1");
        let next = client.monitor("next");
        assert!(next.contains("at point"), "{next}");
        assert_ne!(client.monitor("points 1"), here);
        client.monitor("back");
        assert_eq!(client.monitor("points 1"), here);
        let far = client.monitor("until 99999999");
        assert!(far.contains("the run ends before"), "{far}");
        assert_eq!(client.monitor("points 1"), here);
        let kind = client.monitor("next request");
        assert!(kind.contains("sends"), "{kind}");
        client.monitor("back");
        let message = client.monitor("message vfs");
        assert!(message.contains("at point"), "{message}");
        client.monitor("back");
        assert!(client.monitor("symbols").contains("guest-kernel"));
        assert!(client.monitor("trace 20").lines().count() == 20);
        for wrong in [
            " ",
            "nonsense",
            "until x",
            "next x",
            "message nobody",
            "trace -1",
        ] {
            assert!(!client.monitor(wrong).is_empty(), "{wrong}");
        }

        // The same by gdb's own steps.
        assert!(client.ask("vCont;s:1;c").starts_with("T05"));
        assert_ne!(client.monitor("points 1"), here);
        assert!(client.ask("bc").starts_with("T05"));
        assert_eq!(client.monitor("points 1"), here);
        assert_eq!(client.ask("vCont;c"), "W00");
    });
    must_be_the_same(hash, served);
}

#[test]
fn hostile_clients_change_nothing() {
    let (hash, served, ()) = served(|address| {
        let mut noise = 1u64;
        for round in 0..60 {
            let mut client = TcpStream::connect(address).unwrap();
            let mut junk: Vec<u8> = (0..400)
                .map(|_| {
                    noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1);
                    (noise >> 56) as u8
                })
                .collect();
            match round % 4 {
                0 => {}
                1 => junk = b"$qRcmd,7".to_vec(),
                2 => {
                    // A packet of noise with a sum that is right, and not one that resumes.
                    junk.retain(|byte| !b"#$}\x03".contains(byte));
                    junk.insert(0, b"mMGHTqXZQ"[round / 4 % 9]);
                    let sum = junk.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
                    junk.insert(0, b'$');
                    junk.extend(format!("#{sum:02x}").bytes());
                }
                _ => junk = [&b"$"[..], &vec![b'a'; 1 << 17]].concat(),
            }
            // The other side may have hung up.
            let _ = client.write_all(&junk);
        }
        let client = &mut Client::new(address);
        assert_eq!(client.ask("D"), "OK");
    });
    must_be_the_same(hash, served);
}

#[test]
fn a_kill_is_the_end() {
    let (_, served, ()) = served(|address| Client::new(address).send("k"));
    assert!(served.is_none());
}

#[test]
fn gdb_itself() {
    let gdb = common::tool("gdb").expect("this test needs gdb: install the package gdb");
    let (hash, served, said) = served(move |address| {
        let output = Command::new(gdb)
            .args(["-nx", "-batch", "-ex", "set architecture i386:x86-64"])
            .args(["-ex", &format!("target remote {address}")])
            .args(["-ex", "info threads", "-ex", "monitor waits"])
            .args(["-ex", "p $rip", "-ex", "stepi", "-ex", "reverse-stepi"])
            .args(["-ex", "monitor plan", "-ex", "continue"])
            .output()
            .expect("gdb");
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).into_owned()
    });
    for expected in [
        "vfs: ",
        "waits for",
        "$1 = ",
        "comes next",
        "exited normally",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
    must_be_the_same(hash, served);
}
