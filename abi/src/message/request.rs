//! What can be sent, and how it is answered.

use super::fields::Fields;
use super::{Class, Message, WORDS};
use crate::role::Roles;
use crate::senders::Mode;
use crate::{Endpoint, Errno};
use core::marker::PhantomData;

/// In the kind of a message: it answers what was asked by the rest of the kind.
pub const ANSWER: u64 = 0x80;

/// Words of an answer before its fields: transaction and status.
const ANSWER_HEAD: usize = 2;

/// A typed request: one kind, one encoding. [`crate::protocol!`] declares them.
pub trait Request: Fields {
    /// The kind word.
    const KIND: u64;
    /// For traces and error messages.
    const NAME: &'static str;
    /// Who may send it.
    const SENDERS: Roles;
    /// How it is sent, and answered.
    type How: How<Self::Reply>;
    /// What its answer says when all went well.
    type Reply: Fields;

    /// The kind of the answer to what is asked.
    const ANSWER: u64 = Self::KIND | ANSWER;

    /// The message that carries `self`. What is asked by transaction is told by it: there will
    /// be no answer.
    #[inline(always)]
    fn encode(self) -> Message {
        const {
            assert!(
                Self::How::FIRST + Self::WORDS <= WORDS,
                "more fields than words"
            )
        };
        let mut message = Message::new(Self::KIND);
        self.put(&mut message.words, Self::How::FIRST);
        message
    }

    /// The message that asks, with this transaction.
    #[inline(always)]
    fn ask(self, txn: u64) -> Message
    where
        Self: Request<How = Ask>,
    {
        let mut message = self.encode();
        message.words[0] = txn;
        message
    }

    /// The request in a message, or `None` when it is of another kind or a word is out of range.
    #[inline(always)]
    fn decode(message: &Message) -> Option<Self> {
        if message.kind != Self::KIND {
            return None;
        }
        Self::take(&message.words, Self::How::FIRST)
    }
}

/// How a request is sent and answered, in types: what its server's function gets and returns.
pub trait How<T> {
    /// The same as a value.
    const MODE: Mode;
    /// The word where the request's fields begin.
    const FIRST: usize;
    /// Whom the server's function sees.
    type From: Copy;
    /// What it returns.
    type Outcome;
    /// The sender of `message`.
    fn sender(source: Endpoint, message: &Message) -> Self::From;
    /// The message that goes back now.
    fn finish(from: Self::From, outcome: Self::Outcome) -> Option<Message>;
    /// The message that goes back instead when the request's words make no sense.
    fn malformed(from: Self::From) -> Option<Message>;
}

/// What is called: the sender waits for the reply.
pub trait Called {}

/// By `call`, replied to before the server does anything else.
pub enum Call {}
/// By `call`, replied to when the server has what it takes.
pub enum Wait {}
/// By `post` or `send`, not answered.
pub enum Post {}
/// By `post` with a transaction number that the asker chose, answered by a message with the same.
pub enum Ask {}

impl Called for Call {}
impl Called for Wait {}

impl<T: Fields> How<T> for Call {
    const MODE: Mode = Mode::Call;
    const FIRST: usize = 0;
    type From = Endpoint;
    type Outcome = Result<T, Errno>;
    #[inline(always)]
    fn sender(source: Endpoint, _: &Message) -> Endpoint {
        source
    }
    #[inline(always)]
    fn finish(_: Endpoint, outcome: Self::Outcome) -> Option<Message> {
        Some(reply_message(outcome))
    }
    fn malformed(_: Endpoint) -> Option<Message> {
        Some(Message::error(Errno::EINVAL))
    }
}

impl<T: Fields> How<T> for Wait {
    const MODE: Mode = Mode::Wait;
    const FIRST: usize = 0;
    type From = Caller<T>;
    type Outcome = Answer<T>;
    fn sender(source: Endpoint, _: &Message) -> Caller<T> {
        Caller {
            who: source,
            reply: PhantomData,
        }
    }
    fn finish(_: Caller<T>, outcome: Answer<T>) -> Option<Message> {
        match outcome {
            Answer::Now(result) => Some(reply_message(result)),
            Answer::Later => None,
        }
    }
    fn malformed(_: Caller<T>) -> Option<Message> {
        Some(Message::error(Errno::EINVAL))
    }
}

impl<T: Fields> How<T> for Post {
    const MODE: Mode = Mode::Post;
    const FIRST: usize = 0;
    type From = Endpoint;
    type Outcome = ();
    #[inline(always)]
    fn sender(source: Endpoint, _: &Message) -> Endpoint {
        source
    }
    #[inline(always)]
    fn finish(_: Endpoint, (): ()) -> Option<Message> {
        None
    }
    fn malformed(_: Endpoint) -> Option<Message> {
        None
    }
}

impl<T: Fields> How<T> for Ask {
    const MODE: Mode = Mode::Ask;
    const FIRST: usize = 1;
    type From = Asker<T>;
    type Outcome = Answer<T>;
    #[inline(always)]
    fn sender(source: Endpoint, message: &Message) -> Asker<T> {
        Asker {
            who: source,
            kind: message.kind,
            txn: message.words[0],
            answer: PhantomData,
        }
    }
    #[inline(always)]
    fn finish(from: Asker<T>, outcome: Answer<T>) -> Option<Message> {
        match outcome {
            Answer::Now(result) => from.answer(result),
            Answer::Later => None,
        }
    }
    fn malformed(from: Asker<T>) -> Option<Message> {
        from.answer(Err(Errno::EINVAL))
    }
}

/// What a server has to say, or that it will.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer<T> {
    /// This.
    Now(Result<T, Errno>),
    /// The server keeps the [`Asker`] or [`Caller`] and answers by it.
    Later,
}

impl<T> From<Result<T, Errno>> for Answer<T> {
    fn from(result: Result<T, Errno>) -> Answer<T> {
        Answer::Now(result)
    }
}

/// Who waits for the reply to a call.
pub struct Caller<T> {
    /// Who it is.
    pub who: Endpoint,
    reply: PhantomData<fn(T)>,
}

impl<T: Fields> Caller<T> {
    /// The reply.
    pub fn reply(self, result: Result<T, Errno>) -> Message {
        reply_message(result)
    }
}

impl<T> Clone for Caller<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Caller<T> {}

impl<T> core::fmt::Debug for Caller<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.who, f)
    }
}

/// Who asked something, and what: all that it takes to answer.
pub struct Asker<T> {
    /// Who it is.
    pub who: Endpoint,
    /// Its number for the question; 0 when it wants no answer.
    pub txn: u64,
    kind: u64,
    answer: PhantomData<fn(T)>,
}

impl<T: Fields> Asker<T> {
    /// Who asked `R` as its question `txn`.
    pub fn of<R: Request<Reply = T, How = Ask>>(who: Endpoint, txn: u64) -> Asker<T> {
        Asker {
            who,
            txn,
            kind: R::KIND,
            answer: PhantomData,
        }
    }

    /// The message that answers, if the asker wants one.
    #[inline(always)]
    pub fn answer(self, result: Result<T, Errno>) -> Option<Message> {
        (self.txn != 0).then(|| answer_message(self.kind, self.txn, result))
    }
}

impl<T> Clone for Asker<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Asker<T> {}

impl<T> PartialEq for Asker<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.who, self.txn, self.kind) == (other.who, other.txn, other.kind)
    }
}
impl<T> Eq for Asker<T> {}

impl<T> core::fmt::Debug for Asker<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({:#x}, {})", self.who, self.kind, self.txn)
    }
}

/// The reply message for `result`.
#[inline(always)]
pub fn reply_message<T: Fields>(result: Result<T, Errno>) -> Message {
    const { assert!(T::WORDS <= WORDS, "more fields than words") };
    let mut message = Message::default();
    match result {
        Ok(reply) => reply.put(&mut message.words, 0),
        Err(errno) => message.kind = errno.to_word(),
    }
    message
}

/// What a reply message says.
#[inline(always)]
pub fn reply_result<T: Fields>(message: &Message) -> Result<T, Errno> {
    crate::errno::result_from_word(message.kind)?;
    T::take(&message.words, 0).ok_or(Errno::EIO)
}

/// The message that answers what was asked by `kind` as `txn`.
#[inline(always)]
pub fn answer_message<T: Fields>(kind: u64, txn: u64, result: Result<T, Errno>) -> Message {
    const { assert!(ANSWER_HEAD + T::WORDS <= WORDS, "more fields than words") };
    let mut message = Message::new(kind | ANSWER);
    message.words[0] = txn;
    match result {
        Ok(reply) => reply.put(&mut message.words, ANSWER_HEAD),
        Err(errno) => message.words[1] = errno.to_word(),
    }
    message
}

/// The answer that what was asked by `message` failed, if that was a question that wants one.
pub fn error_answer(message: &Message, errno: Errno) -> Option<Message> {
    let asked = crate::proto::mode(message.kind) == Some(Mode::Ask) && message.words[0] != 0;
    asked.then(|| answer_message::<()>(message.kind, message.words[0], Err(errno)))
}

/// Whether a message of this class and kind answers a question.
pub fn is_answer(class: Class, message: &Message) -> bool {
    matches!(class, Class::Post | Class::Send) && message.kind & ANSWER != 0
}

/// The number of a question, in what asks it and in what answers it.
pub fn transaction(message: &Message) -> u64 {
    message.words[0]
}

/// How what a message answers went, whatever it was.
pub fn answered_status(message: &Message) -> Result<(), Errno> {
    crate::errno::result_from_word(message.words[1]).map(|_| ())
}

/// What a message says to who asked `R`. `EIO` when it does not answer that.
#[inline(always)]
pub fn answer_result<R: Request<How = Ask>>(message: &Message) -> Result<R::Reply, Errno> {
    if message.kind != R::ANSWER {
        return Err(Errno::EIO);
    }
    crate::errno::result_from_word(message.words[1])?;
    R::Reply::take(&message.words, ANSWER_HEAD).ok_or(Errno::EIO)
}
