//! The declaration of a protocol.

/// Declares the requests of one protocol.
///
/// ```text
/// protocol! {
///     base = 0x5000;
///     servers = [FILES, PROC];
///
///     /// The next hole, or the next data.
///     #[from(VFS)]
///     ask Seek = 23 { ino: u64, offset: u64, hole: bool } -> Position { position: u64 };
/// }
/// ```
///
/// `servers` are the roles that serve it ([`Roles`](crate::role::Roles)), `#[from(..)]` those that may send a request, and
/// the word before its name says how ([`How`](crate::message::request::How)): `call`, `wait`, `post` or `ask`. Each request becomes a struct
/// with [`Request`](crate::Request); its fields are [`Fields`](crate::message::Fields), and that all have room in a message is checked at compile
/// time. `-> Type { fields }` declares the answer as well; `-> Type` alone names one declared elsewhere; without it the answer is `()`.
///
/// The module also gets `name(kind)` for traces, `RULES`, `admit`, and `serve`, which a server calls with what it received: a message
/// that the sender may not send, or that is malformed, reaches none of the server's functions
/// ([`Serve`](crate::message::Serve)), of which none may be missing.
#[macro_export]
macro_rules! protocol {
    (
        base = $base:expr;
        servers = [$($server:ident),+];
        $(
            $(#[doc = $doc:expr])*
            #[from($($from:ident),+)]
            $mode:ident $name:ident = $op:literal { $( $(#[$fdoc:meta])* $field:ident : $ty:ty ),* $(,)? }
            $( -> $reply:ident $( { $( $(#[$rdoc:meta])* $rfield:ident : $rty:ty ),* $(,)? } )? )?
            ;
        )*
    ) => {
        /// The kinds of this protocol are `BASE + 1 ..= BASE + 127`, and the answers to them.
        pub const BASE: u64 = $base;

        /// Who serves it.
        pub const SERVERS: $crate::role::Roles =
            $crate::role::Roles::of_all(&[$($crate::role::Roles::$server),+]);

        $(
            $crate::fields! {
                $(#[doc = $doc])*
                #[doc = concat!("\n\nSent by `", stringify!($mode), "` from: ", stringify!($($from),+), ".")]
                pub struct $name { $( $(#[$fdoc])* pub $field: $ty ),* }
            }

            impl $crate::message::Request for $name {
                const KIND: u64 = BASE + $op;
                const NAME: &'static str = stringify!($name);
                const SENDERS: $crate::role::Roles =
                    $crate::role::Roles::of_all(&[$($crate::role::Roles::$from),+]);
                type How = $crate::protocol!(@how $mode);
                type Reply = $crate::protocol!(@reply $($reply)?);
            }

            $($(
                $crate::fields! {
                    #[doc = concat!("The answer to [`", stringify!($name), "`].")]
                    pub struct $reply { $( $(#[$rdoc])* pub $rfield: $rty ),* }
                }
            )?)?
        )*

        /// What stands here of each message.
        pub const RULES: &[$crate::senders::Rule] = &[$(
            $crate::senders::Rule {
                kind: <$name as $crate::message::Request>::KIND,
                name: stringify!($name),
                mode: $crate::protocol!(@mode $mode),
                senders: <$name as $crate::message::Request>::SENDERS,
                arguments: <$name as $crate::message::Fields>::PARTS,
                answer: <<$name as $crate::message::Request>::Reply as $crate::message::Fields>::PARTS,
            },
        )*];

        static GATES: $crate::senders::Gates = $crate::senders::Gates::new(BASE, SERVERS, RULES);

        /// Whether `source` may send a message of this kind in this way.
        #[inline]
        pub fn admit(
            source: $crate::Endpoint,
            class: $crate::Class,
            kind: u64,
        ) -> Result<(), $crate::senders::Refusal> {
            GATES.admit(source, class, kind)
        }

        /// How a request of this kind is sent.
        pub const fn mode(kind: u64) -> Option<$crate::senders::Mode> {
            match kind.wrapping_sub(BASE) {
                $( $op => Some($crate::protocol!(@mode $mode)), )*
                _ => None,
            }
        }

        /// Has `server` serve a message, if its sender may send it.
        #[inline]
        pub fn serve<S>(
            server: &mut S,
            source: $crate::Endpoint,
            class: $crate::Class,
            message: &$crate::message::Message,
        ) -> $crate::message::Handled
        where
            S: $crate::message::Server $( + $crate::message::Serve<$name> )*,
        {
            let admitted = admit(source, class, message.kind);
            if let Err(refusal) = $crate::senders::Refusal::unless(server.trusts_all(), admitted) {
                return $crate::message::Handled::refused(class, refusal);
            }
            match message.kind {
                $(
                    <$name as $crate::message::Request>::KIND => {
                        $crate::message::serve::serve::<$name, S>(server, source, message)
                    }
                )*
                _ => $crate::message::Handled::refused(class, $crate::senders::Refusal::Unknown),
            }
        }

        /// What is read from a message of this protocol, written again.
        #[cfg(test)]
        pub fn again(message: &$crate::message::Message) -> Option<$crate::message::Message> {
            $(
                if message.kind == <$name as $crate::message::Request>::KIND {
                    let read = <$name as $crate::message::Request>::decode(message)?;
                    return Some($crate::message::Request::encode(read));
                }
            )*
            None
        }

        /// The name of a request, or of the answer to it, for traces.
        pub const fn name(kind: u64) -> Option<&'static str> {
            const ANSWER: u64 = $crate::message::ANSWER;
            match kind.wrapping_sub(BASE) {
                $( $op => Some(stringify!($name)), )*
                answer => match answer ^ ANSWER {
                    $( $op => Some(concat!(stringify!($name), "Done")), )*
                    _ => None,
                },
            }
        }
    };
    (@how call) => { $crate::message::request::Call };
    (@how wait) => { $crate::message::request::Wait };
    (@how post) => { $crate::message::request::Post };
    (@how ask) => { $crate::message::request::Ask };
    (@mode call) => { $crate::senders::Mode::Call };
    (@mode wait) => { $crate::senders::Mode::Wait };
    (@mode post) => { $crate::senders::Mode::Post };
    (@mode ask) => { $crate::senders::Mode::Ask };
    (@reply) => { () };
    (@reply $reply:ident) => { $reply };
}
