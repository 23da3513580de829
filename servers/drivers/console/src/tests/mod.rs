//! Tests of the driver against a world of lists.

mod hostile;
#[path = "../../../../../tests/common/largest.rs"]
mod largest;
mod ldisc;
mod port;
mod ptys;
mod server;

use crate::world::{Port, World};
use abi::grant::{ToRead, ToWrite};
use abi::hostlink::Channel;
use abi::message::{Handled, answer_result, reply_result, transaction};
use abi::proto::device::{Ioctl, Moved, Open, Poll, Read, Write};
use abi::{Class, Endpoint, Errno, Message, Request};
use std::collections::HashMap;
use std::vec::Vec;

/// Everything that happens outside the driver.
#[derive(Default)]
pub struct Lists {
    /// Contents of grants by id; absent grants fault.
    pub grants: HashMap<i32, Vec<u8>>,
    pub done: Vec<(u64, Result<u64, Errno>)>,
    pub ready: Vec<(u32, u32, u32)>,
    pub raised: Vec<(u32, i32)>,
    pub hung_up: Vec<u32>,
    pub ends: u32,
    pub replies: Vec<(Endpoint, Result<(), Errno>)>,
    pub now: u64,
    pub timer: u64,
}

impl World for Lists {
    fn fetch(
        &mut self,
        _: Endpoint,
        grant: ToRead,
        offset: u64,
        to: &mut [u8],
    ) -> Result<(), Errno> {
        let data = self.grants.get(&grant.id()).ok_or(Errno::EFAULT)?;
        let offset = offset as usize;
        let from = data.get(offset..offset + to.len()).ok_or(Errno::EFAULT)?;
        to.copy_from_slice(from);
        Ok(())
    }
    fn store(&mut self, _: Endpoint, grant: ToWrite, from: &[u8]) -> Result<(), Errno> {
        let data = self.grants.get_mut(&grant.id()).ok_or(Errno::EFAULT)?;
        *data = from.to_vec();
        Ok(())
    }
    fn answer(&mut self, _: Endpoint, message: Message) {
        let bytes = |result: Result<Moved, Errno>| result.map(|moved| moved.bytes);
        let result = match message.kind {
            Read::ANSWER => bytes(answer_result::<Read>(&message)),
            Write::ANSWER => bytes(answer_result::<Write>(&message)),
            Ioctl::ANSWER => answer_result::<Ioctl>(&message).map(|done| done.value),
            Poll::ANSWER => answer_result::<Poll>(&message).map(|ready| ready.events.into()),
            _ => answer_result::<Open>(&message).map(|opened| opened.minor.into()),
        };
        self.done.push((transaction(&message), result));
    }
    fn ready(&mut self, major: u32, minor: u32, events: u32) {
        self.ready.push((major, minor, events));
    }
    fn raise(&mut self, group: u32, signal: i32) {
        self.raised.push((group, signal));
    }
    fn hang_up(&mut self, session: u32) {
        self.hung_up.push(session);
    }
    fn end_run(&mut self) {
        self.ends += 1;
    }

    fn reply(&mut self, caller: Endpoint, message: Message) {
        self.replies.push((caller, reply_result(&message)));
    }
    fn now(&self) -> u64 {
        self.now
    }
    fn set_timer(&mut self, deadline: u64) {
        self.timer = deadline;
    }
}

impl Lists {
    /// What a request came to at once.
    pub fn sent(&mut self, source: Endpoint, class: Class, handled: Handled) {
        match handled.answer {
            Some(message) if class == Class::Call => self.reply(source, message),
            Some(message) => self.answer(source, message),
            None => {}
        }
    }
}

/// A device that takes `room` packets until it is told to go on.
pub struct Wire {
    pub room: usize,
    pub packets: Vec<(Channel, Vec<u8>)>,
    pub drained: bool,
}

impl Wire {
    pub fn open() -> Wire {
        Wire {
            room: usize::MAX,
            packets: Vec::new(),
            drained: true,
        }
    }

    /// All bytes of a channel.
    pub fn sent(&self, channel: Channel) -> Vec<u8> {
        let of = |p: &&(Channel, Vec<u8>)| p.0 == channel;
        self.packets
            .iter()
            .filter(of)
            .flat_map(|p| p.1.clone())
            .collect()
    }
}

impl Port for Wire {
    fn send(&mut self, channel: Channel, payload: &[u8]) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.packets.push((channel, payload.to_vec()));
        true
    }
    fn push(&mut self) -> bool {
        self.room > 0
    }
    fn drained(&self) -> bool {
        self.drained
    }
}
