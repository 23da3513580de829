//! Posting that cannot fail for lack of room: what the kernel's outbox does not take waits
//! here, in order, until [`flush`]. In small pieces: what ends a thousand things posts a thousand messages, and
//! the memory for them is what those things had.

use crate::cell::Single;
use crate::ipc;
use abi::message::request::{Ask, Asker, Post};
use abi::{Endpoint, Errno, Fields, Message, Request};
use alloc::collections::{LinkedList, VecDeque};

/// Messages of a piece.
const PIECE: usize = 32;

static WAITING: Single<Waiting> = Single::new(Waiting(LinkedList::new()));

/// Messages, oldest first; no piece is empty.
struct Waiting(LinkedList<VecDeque<(Endpoint, Message)>>);

impl Waiting {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, message: (Endpoint, Message)) {
        match self.0.back_mut() {
            Some(last) if last.len() < PIECE => last.push_back(message),
            _ => {
                let mut piece = VecDeque::with_capacity(PIECE);
                piece.push_back(message);
                self.0.push_back(piece);
            }
        }
    }

    fn first(&self) -> Option<(Endpoint, Message)> {
        self.0.front()?.front().copied()
    }

    fn pop(&mut self) {
        if let Some(piece) = self.0.front_mut() {
            piece.pop_front();
            if piece.is_empty() {
                self.0.pop_front();
            }
        }
    }
}

/// Posts `request` to `to`, now or later. A dead peer's messages are dropped.
pub fn post<R: Request<How = Post>>(to: Endpoint, request: R) {
    post_message(to, request.encode());
}

/// Asks `to` as question `txn`, likewise.
pub fn ask<R: Request<How = Ask>>(to: Endpoint, txn: u64, request: R) {
    post_message(to, request.ask(txn));
}

/// Answers a question, likewise, if its asker wants that.
pub fn answer<T: Fields>(asker: Asker<T>, result: Result<T, Errno>) {
    if let Some(message) = asker.answer(result) {
        post_message(asker.who, message);
    }
}

/// The untyped form of [`post`].
pub fn post_message(to: Endpoint, message: Message) {
    let mut waiting = WAITING.borrow();
    if !waiting.is_empty() || ipc::post_raw(to, message) == Err(Errno::EAGAIN) {
        waiting.push((to, message));
    }
}

/// Posts what waits, as far as it goes. Call it on [`abi::kernel::KernelNotify::OUTBOX`].
pub fn flush() {
    let mut waiting = WAITING.borrow();
    while let Some((to, message)) = waiting.first() {
        if ipc::post_raw(to, message) == Err(Errno::EAGAIN) {
            return;
        }
        waiting.pop();
    }
}

/// Whether nothing waits: a post that goes straight to the kernel overtakes nothing.
pub fn is_empty() -> bool {
    WAITING.borrow().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_wait_in_order_in_small_pieces() {
        let mut waiting = Waiting(LinkedList::new());
        let message = |n: u64| (Endpoint::VFS, Message::new(n));
        let (mut put, mut got) = (0, 0);
        for round in 0..200 {
            for _ in 0..round % 70 {
                waiting.push(message(put));
                put += 1;
            }
            for _ in 0..round % 50 {
                if let Some((_, first)) = waiting.first() {
                    assert_eq!(first.kind, got);
                    got += 1;
                    waiting.pop();
                }
            }
            assert!(waiting.0.iter().all(|piece| piece.capacity() == PIECE));
        }
        while let Some((_, first)) = waiting.first() {
            assert_eq!(first.kind, got);
            got += 1;
            waiting.pop();
        }
        assert!(waiting.is_empty() && put == got);
    }
}
