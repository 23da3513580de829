//! The servers' protocols. One module a receiver; every request is a typed struct.
//!
//! Two styles, by who may wait:
//! * `call`: only *upwards* to a server that answers without waiting itself. VM may be
//!   called by everybody; VFS by PM and proc (answered by its dispatcher at once, unless it says `wait`); PM by RS
//!   and proc; drivers by file systems.
//! * `ask`: posted with a transaction number that the asker chooses and that the answer repeats,
//!   where the answer takes time: VFS to file systems, drivers and VM's handle-memory; VM to
//!   VFS. The answer is a posted message of its own kind and cannot satisfy a `call`.

use crate::senders::{Mode, Refusal, Rule};
use crate::{Class, Endpoint};

/// A protocol as a whole.
pub struct Protocol {
    /// Its name.
    pub name: &'static str,
    /// Who serves it.
    pub servers: crate::role::Roles,
    /// Its messages.
    pub rules: &'static [Rule],
}

macro_rules! protocols {
    ($($module:ident)*) => {
        $(pub mod $module;)*

        /// All of them.
        pub const PROTOCOLS: &[Protocol] = &[$(
            Protocol {
                name: stringify!($module),
                servers: $module::SERVERS,
                rules: $module::RULES,
            },
        )*];

        /// Whether `source` may send a message of this kind in this way, whatever protocol it is of.
        pub fn admit(source: Endpoint, class: Class, kind: u64) -> Result<(), Refusal> {
            match base(kind) {
                $($module::BASE => $module::admit(source, class, kind),)*
                _ => Err(Refusal::Unknown),
            }
        }

        /// The name of any request, for traces.
        pub const fn name(kind: u64) -> Option<&'static str> {
            match base(kind) {
                $($module::BASE => $module::name(kind),)*
                _ => None,
            }
        }

        /// How a request of this kind is sent.
        pub const fn mode(kind: u64) -> Option<Mode> {
            match base(kind) {
                $($module::BASE => $module::mode(kind),)*
                _ => None,
            }
        }

        /// What is read from a message, written again.
        #[cfg(test)]
        pub fn again(message: &crate::Message) -> Option<crate::Message> {
            match base(message.kind) {
                $($module::BASE => $module::again(message),)*
                _ => None,
            }
        }
    };
}
protocols!(vm vfs pm rs fs device disk terminal block);

/// The `BASE` of the protocol that a kind of request is of.
pub const fn base(kind: u64) -> u64 {
    kind & !0xff
}
