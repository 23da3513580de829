//! The memory server's image: performs on the machine what the library decides.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

mod boot;

use abi::kernel::{Kcall, KernelNotify};
use abi::{Class, Endpoint, Errno};
use alloc::vec::Vec;
use rt::ipc::{self, Received};
use rt::{kernel, outbox};
use vm::server::{Effect, Server};

rt::boot_entry!(main, "vm");

/// How long a frame that will come is waited for before it is asked for again.
const TRY_AGAIN_NS: u64 = 200_000;

fn main() -> ! {
    let mut server = match boot::boot() {
        Ok(server) => server,
        Err(error) => panic!("boot: {error}"),
    };
    let mut effects = Vec::new();
    loop {
        server.take_effects(&mut effects);
        // As long as VFS listens: what it is told must not become much here.
        while server.has_more() && outbox::is_empty() {
            perform(&mut effects);
            server.settle();
            server.take_effects(&mut effects);
        }
        match next(&mut effects) {
            Ok(received) => handle(&mut server, received),
            Err(error) => rt::log!("receive: {error}"),
        }
    }
}

fn handle(server: &mut Server, received: Received) {
    if received.class != Class::Kernel {
        server.handle(received.source, received.class, &received.message);
        return;
    }
    let bits = KernelNotify::from_bits_truncate(received.message.words[0]);
    if bits.contains(KernelNotify::OUTBOX) {
        outbox::flush();
    }
    if bits.contains(KernelNotify::TIMER) {
        server.try_again();
    }
    if bits.contains(KernelNotify::MEMREQ) {
        while let Ok(request) = kernel::memreq_get() {
            server.handle_memory_request(&request);
        }
    }
}

/// Performs the effects and waits for the next message; the last effect and the waiting
/// share one kernel visit where they can.
fn next(effects: &mut Vec<Effect>) -> Result<Received, Errno> {
    let last = effects.pop();
    perform(effects);
    match last {
        Some(Effect::Reply(to, message)) => return ipc::reply_receive(to, message),
        Some(Effect::Post(to, message)) if outbox::is_empty() => {
            match ipc::post_receive(to, message) {
                Err(Errno::EAGAIN) => outbox::post_message(to, message),
                result => return result,
            }
        }
        Some(effect) => perform_one(effect),
        None => {}
    }
    ipc::receive()
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
            let _ = kernel::kcall(Kcall::SetTimer, [at, 0, 0, 0, 0]);
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
