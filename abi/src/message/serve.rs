//! What a server makes of a message: the function for what is asked, or a refusal.

use super::request::{How, Request};
use super::{Class, Message};
use crate::senders::Refusal;
use crate::{Endpoint, Errno};

/// A server's function for one request. What it sees of the sender and what it returns is said
/// by how the request is sent ([`How`]):
///
/// | | sees | returns |
/// | --- | --- | --- |
/// | call | who | `Result<Reply, Errno>` |
/// | wait | [`super::Caller`] | [`super::Answer`] |
/// | post | who | nothing |
/// | ask | [`super::Asker`] | [`super::Answer`] |
///
/// A module of [`crate::protocol!`] has a function `serve` for who has all of these.
pub trait Serve<R: Request> {
    /// Serves it. The sender is one that may send it.
    fn serve(&mut self, from: From<R>, request: R) -> Outcome<R>;
}

/// Whom [`Serve::serve`] sees.
pub type From<R> = <<R as Request>::How as How<<R as Request>::Reply>>::From;
/// What it returns.
pub type Outcome<R> = <<R as Request>::How as How<<R as Request>::Reply>>::Outcome;

/// What all servers have in common.
pub trait Server {
    /// Believes every service: a deliberate defect ([`crate::sabotage`]).
    fn trusts_all(&self) -> bool {
        false
    }
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handled {
    /// What goes back to the sender: the reply to a call; posted, the answer to what was asked.
    pub answer: Option<Message>,
    /// Why no function saw it.
    pub refused: Option<Refusal>,
}

impl Handled {
    /// Nothing is to be said now.
    pub const NOTHING: Handled = Handled {
        answer: None,
        refused: None,
    };

    /// This goes back.
    pub const fn answered(message: Message) -> Handled {
        Handled {
            answer: Some(message),
            refused: None,
        }
    }

    /// The error that goes back to who asked or called `message`, instead of what its server
    /// would say; nothing to who only told something.
    pub fn failed(class: Class, message: &Message, errno: Errno) -> Handled {
        let answer = match class.wants_reply() {
            true => Some(Message::error(errno)),
            false => super::request::error_answer(message, errno),
        };
        Handled {
            answer,
            refused: None,
        }
    }

    /// Refuses a message: who called gets an error, nobody else hears of it.
    #[cold]
    pub fn refused(class: Class, refusal: Refusal) -> Handled {
        Handled {
            answer: class.wants_reply().then(|| Message::error(refusal.errno())),
            refused: Some(refusal),
        }
    }
}

/// Serves a message of `R`, which its sender may send.
#[inline(always)]
pub fn serve<R: Request, S: Serve<R>>(
    server: &mut S,
    source: Endpoint,
    message: &Message,
) -> Handled {
    let from = R::How::sender(source, message);
    let Some(request) = R::decode(message) else {
        return Handled {
            answer: R::How::malformed(from),
            refused: Some(Refusal::Malformed),
        };
    };
    Handled {
        answer: R::How::finish(from, server.serve(from, request)),
        refused: None,
    }
}

/// Gives a server its functions, one for each request ([`Serve`]): what it does with the sender
/// and the request. Where an answer may come later, a `Result` comes now.
///
/// ```text
/// serve! { [S: System] Pm<S>;
///     pm::HangUp => |pm, _, r| pm.hang_up(r.session);
/// }
/// ```
#[macro_export]
macro_rules! serve {
    (
        $generics:tt $server:ty;
        $( $request:ty => |$me:ident, $from:pat_param, $r:pat_param| $serve:expr; )*
    ) => {
        $( $crate::serve!(@one $generics $server, $request, $me, $from, $r, $serve); )*
    };
    (
        @one [$($generics:tt)*] $server:ty, $request:ty,
        $me:ident, $from:pat_param, $r:pat_param, $serve:expr
    ) => {
        impl<$($generics)*> $crate::message::Serve<$request> for $server {
            #[inline(always)]
            fn serve(
                &mut self,
                $from: $crate::message::serve::From<$request>,
                $r: $request,
            ) -> $crate::message::serve::Outcome<$request> {
                let $me = self;
                ::core::convert::Into::into($serve)
            }
        }
    };
}
