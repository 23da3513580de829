//! Who may say what: every message is looked up here before anything of it is decoded.

use crate::message::ANSWER;
use crate::role::Roles;
use crate::{Class, Endpoint, Errno, Message};

/// How a message is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// By `call`: the sender waits for the reply, which it gets before the server does anything else.
    Call,
    /// By `call`, and the reply may take its time.
    Wait,
    /// By `post` or `send`, not answered.
    Post,
    /// By `post` or `send`; the answer is a message of its own.
    Ask,
}

impl Mode {
    /// Whether the sender waits for a reply.
    pub const fn is_call(self) -> bool {
        matches!(self, Mode::Call | Mode::Wait)
    }
}

/// What a protocol declares of one of its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Its kind.
    pub kind: u64,
    /// Its name.
    pub name: &'static str,
    /// How it is sent.
    pub mode: Mode,
    /// Who may send it.
    pub senders: Roles,
    /// What it says: names and types.
    pub arguments: &'static [(&'static str, &'static str)],
    /// What is answered when all went well.
    pub answer: &'static [(&'static str, &'static str)],
}

/// Why a message is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No message of the protocol is of this kind and sent in this way.
    Unknown,
    /// It is not the sender's to send.
    NotYours,
    /// A word of it is out of range.
    Malformed,
}

impl Refusal {
    /// What becomes of a message: with `trusts_all`, a deliberate defect ([`crate::sabotage`]), it
    /// does not matter who sends it.
    #[inline]
    pub fn unless(trusts_all: bool, admitted: Result<(), Refusal>) -> Result<(), Refusal> {
        match admitted {
            Err(Refusal::NotYours) if trusts_all => Ok(()),
            admitted => admitted,
        }
    }

    /// The status of the reply to a refused call.
    pub const fn errno(self) -> Errno {
        match self {
            Refusal::Unknown => Errno::ENOSYS,
            Refusal::NotYours => Errno::EPERM,
            Refusal::Malformed => Errno::EINVAL,
        }
    }
}

/// The rules of one protocol, by the low byte of the kind: the bits of the senders, and
/// `CALL`. 0 is no message.
pub struct Gates {
    base: u64,
    gates: [u32; 256],
}

/// In a gate: the message is a call. No endpoint that sends has this role bit.
const CALL: u32 = 1 << 31;

impl Gates {
    /// The gates of the protocol at `base` with these rules. What `servers` are asked they may
    /// answer.
    pub const fn new(base: u64, servers: Roles, rules: &[Rule]) -> Gates {
        let mut gates = [0; 256];
        let mut i = 0;
        while i < rules.len() {
            let rule = &rules[i];
            let index = (rule.kind - base) as usize;
            assert!(index & ANSWER as usize == 0, "the kind of an answer");
            let gate = &mut gates[index];
            assert!(*gate == 0, "two messages of one kind");
            assert!(rule.senders.bits() != 0 && rule.senders.bits() & CALL == 0);
            *gate = rule.senders.bits();
            if rule.mode.is_call() {
                *gate |= CALL;
            }
            if matches!(rule.mode, Mode::Ask) {
                gates[index | ANSWER as usize] = servers.bits();
            }
            i += 1;
        }
        Gates { base, gates }
    }

    /// Whether `source` may send a message of this kind in this way.
    #[inline]
    pub fn admit(&self, source: Endpoint, class: Class, kind: u64) -> Result<(), Refusal> {
        let index = kind.wrapping_sub(self.base);
        let gate = match self.gates.get(usize::try_from(index).unwrap_or(usize::MAX)) {
            Some(&gate) if gate != 0 => gate,
            _ => return Err(Refusal::Unknown),
        };
        let called = match class {
            Class::Call => true,
            Class::Post | Class::Send => false,
            _ => return Err(Refusal::Unknown),
        };
        if (gate & CALL != 0) != called {
            return Err(Refusal::Unknown);
        }
        if gate & !CALL & 1 << source.role_bits() == 0 {
            return Err(Refusal::NotYours);
        }
        Ok(())
    }
}

/// Counts what is refused, so that a service that goes on and on cannot fill the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refused(u64);

impl Refused {
    /// Nothing yet.
    pub const fn new() -> Refused {
        Refused(0)
    }

    /// How many there were.
    pub const fn total(&self) -> u64 {
        self.0
    }

    /// One more; its line for the log when it is worth one: the first, the second, the fourth and
    /// so on.
    pub fn note<'a>(
        &mut self,
        source: Endpoint,
        message: &'a Message,
        refusal: Refusal,
    ) -> Option<Line<'a>> {
        self.0 += 1;
        self.0.is_power_of_two().then_some(Line {
            source,
            message,
            refusal,
        })
    }
}

/// The line for the log about a refused message.
pub struct Line<'a> {
    source: Endpoint,
    message: &'a Message,
    refusal: Refusal,
}

impl core::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let role = self.source.role().map_or("nobody", |role| role.name());
        let name = crate::proto::name(self.message.kind).unwrap_or("?");
        write!(
            f,
            "refused {name} ({:#x}) from {}, {role}: {:?}",
            self.message.kind, self.source, self.refusal
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{self, PROTOCOLS};
    use crate::role::Role;

    #[test]
    fn every_message_admits_its_senders_and_nobody_else() {
        let mut checked = 0;
        for protocol in PROTOCOLS {
            let answers = protocol.rules.iter().filter(|rule| rule.mode == Mode::Ask);
            let answers = answers.map(|rule| Rule {
                kind: rule.kind | ANSWER,
                mode: Mode::Post,
                senders: protocol.servers,
                ..*rule
            });
            for rule in protocol.rules.iter().copied().chain(answers) {
                assert!(!rule.senders.contains(Role::Program), "{}", rule.name);
                for role in Role::ALL {
                    // The role goes by its bits alone: slot and generation, a restarted
                    // service's too, do not matter.
                    for (slot, generation) in [(1, 0), (7, 3), (255, 0xffff), (1023, u32::MAX)] {
                        let who = Endpoint::service(role, slot, generation);
                        assert_eq!(who.role(), Some(role));
                        assert_eq!((who.slot(), who.is_process()), (slot, true));
                        let (right, wrong): (&[Class], Class) = match rule.mode.is_call() {
                            true => (&[Class::Call], Class::Post),
                            false => (&[Class::Post, Class::Send], Class::Call),
                        };
                        let expected = match rule.senders.contains(role) {
                            true => Ok(()),
                            false => Err(Refusal::NotYours),
                        };
                        for &class in right {
                            assert_eq!(proto::admit(who, class, rule.kind), expected);
                        }
                        let other = proto::admit(who, wrong, rule.kind);
                        assert_eq!(other, Err(Refusal::Unknown));
                        checked += 1;
                    }
                }
                for special in [
                    Endpoint::ANY,
                    Endpoint::NONE,
                    Endpoint::KERNEL,
                    Endpoint::SELF,
                ] {
                    for class in [Class::Call, Class::Post] {
                        assert!(proto::admit(special, class, rule.kind).is_err());
                    }
                    assert_eq!(special.role(), None);
                }
            }
        }
        assert!(checked > 5000, "{checked}");
    }

    #[test]
    fn what_is_no_message_is_nobodys() {
        let rules = || PROTOCOLS.iter().flat_map(|protocol| protocol.rules);
        let known = |kind| {
            rules().any(|r| r.kind == kind || r.mode == Mode::Ask && r.kind | ANSWER == kind)
        };
        let strange = [
            u64::MAX,
            1 << 32 | proto::vm::BASE | 1,
            0x7fff_ffff_ffff_ffff,
        ];
        for kind in (0..0x10000).chain(strange) {
            for who in [Endpoint::VFS, Endpoint::PM, Endpoint::new(40, 1)] {
                for class in [Class::Call, Class::Post] {
                    assert!(known(kind) || proto::admit(who, class, kind).is_err());
                }
            }
            for class in [Class::Notify, Class::Kernel, Class::Linux, Class::PageFault] {
                assert!(proto::admit(Endpoint::VFS, class, kind).is_err());
            }
        }
    }

    #[test]
    fn who_goes_on_and_on_does_not_fill_the_log() {
        let mut refused = Refused::new();
        let message = Message::new(0);
        let mut note = || refused.note(Endpoint::ANY, &message, Refusal::Unknown);
        let lines = (0..1_000_000).filter(|_| note().is_some()).count();
        assert_eq!(lines, 20);
    }
}
