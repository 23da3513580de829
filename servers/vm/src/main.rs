//! The memory server's image: performs on the machine what the library decides.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

mod boot;

use abi::kernel::KernelNotify;
use abi::message::Handled;
use abi::{Endpoint, Errno};
use alloc::vec::Vec;
use rt::ipc::{self, Received};
use rt::serve::{self, Last, Service};
use rt::{kernel, outbox};
use vm::server::{Effect, Server};

rt::boot_entry!(main, "vm");

/// How long a frame that will come is waited for before it is asked for again.
const TRY_AGAIN_NS: u64 = 200_000;

fn main() -> ! {
    let server = match boot::boot() {
        Ok(server) => server,
        Err(error) => panic!("boot: {error}"),
    };
    let effects = Vec::new();
    serve::run(&mut Memory { server, effects })
}

/// VM as a service.
struct Memory {
    server: Server,
    /// What is to be done before the next message.
    effects: Vec<Effect>,
}

impl Service for Memory {
    fn serve(&mut self, received: &Received) -> Handled {
        let Received {
            source,
            class,
            ref message,
        } = *received;
        self.server.handle(source, class, message)
    }

    fn notified(&mut self, bits: KernelNotify) {
        if bits.contains(KernelNotify::TIMER) {
            self.server.try_again();
        }
        if bits.contains(KernelNotify::MEMREQ) {
            while let Ok(request) = kernel::memreq_get() {
                self.server.handle_memory_request(&request);
            }
        }
    }

    /// Performs the effects; the last one and the waiting share one kernel visit where they can.
    fn receive(&mut self, _: Option<Last>) -> Result<Received, Errno> {
        let Memory { server, effects } = self;
        server.take_effects(effects);
        // As long as VFS listens: what it is told must not become much here.
        while server.has_more() && outbox::is_empty() {
            perform(effects);
            server.settle();
            server.take_effects(effects);
        }
        let last = effects.pop();
        perform(effects);
        let last = match last {
            Some(Effect::Reply(to, message)) => Some(Last::Reply(to, message)),
            Some(Effect::Post(to, message)) => Some(Last::Post(to, message)),
            Some(effect) => {
                perform_one(effect);
                None
            }
            None => None,
        };
        serve::receive(last).inspect_err(|error| rt::log!("receive: {error}"))
    }
}

/// Performs effects in order. Most can fail only because a process died meanwhile, which
/// its own end cleans up after.
pub fn perform(effects: &mut Vec<Effect>) {
    effects.drain(..).for_each(perform_one);
}

fn perform_one(effect: Effect) {
    match effect {
        Effect::Reply(to, message) => {
            let _ = ipc::reply_raw(to, message);
        }
        Effect::Post(to, message) => outbox::post_message(to, message),
        Effect::MemoryReply(to, result) => {
            let _ = kernel::memreq_reply(to, result);
        }
        Effect::Bind(who, top) => bind(who, top.map_or(0, |frame| frame.address())),
        Effect::TryLater => {
            let at = kernel::time_ns() + TRY_AGAIN_NS;
            let _ = kernel::set_timer(at);
        }
        Effect::Log(text) => rt::log!("{text}"),
    }
}

fn bind(who: Endpoint, top: u64) {
    if let Err(error) = kernel::set_address_space(who, top)
        && error != Errno::ESRCH
    {
        rt::log!("address space of {who}: {error}");
    }
}
