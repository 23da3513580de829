//! The virtio block driver's image.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::proto::block;
use abi::proto::rs::Started;
use abi::{Class, Endpoint, Errno, Message, Request};
use alloc::collections::VecDeque;
use rt::abi::kernel::KernelNotify;
use rt::ipc::{self, Received};
use rt::mishap::Mishap;
use virtio::window::{self, is_interrupt};
use virtio::{DeviceType, dma};
use virtio_blk::disk::{DMA_PAGES, Disk};
use virtio_blk::serve::{Grants, answer};
use virtio_blk::special;

rt::entry!(main);

/// The requests that [`Mishap`] can name.
const REQUESTS: [(&str, u64); 3] = [
    ("read", block::Read::KIND),
    ("write", block::Write::KIND),
    ("flush", block::Flush::KIND),
];

/// The kernel's copies, and callers that wait for their turn.
#[derive(Default)]
struct Host {
    waiting: VecDeque<Received>,
    polled: bool,
}

/// Turns between two looks at a polled device, which cost an exit each.
const PATIENCE: usize = 1000;

impl Grants for Host {
    fn fetch(
        &mut self,
        granter: Endpoint,
        grant: i32,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Errno> {
        rt::copy::safecopy_from(granter, grant, offset, buffer)
    }

    fn store(
        &mut self,
        granter: Endpoint,
        grant: i32,
        offset: u64,
        buffer: &[u8],
    ) -> Result<(), Errno> {
        rt::copy::safecopy_to(granter, grant, offset, buffer)
    }

    fn wait(&mut self) {
        if self.polled {
            return (0..PATIENCE).for_each(|_| core::hint::spin_loop());
        }
        loop {
            match ipc::receive() {
                Ok(received) if received.class == Class::Kernel => {
                    if note(received.message.words[0]) {
                        return;
                    }
                }
                Ok(received) => self.waiting.push_back(received),
                Err(_) => {}
            }
        }
    }
}

/// Takes note of the kernel's notifications; whether the device interrupted.
fn note(bits: u64) -> bool {
    if bits & KernelNotify::OUTBOX.bits() != 0 {
        rt::outbox::flush();
    }
    is_interrupt(bits)
}

/// Answers a caller and takes the next message: one that waits, or what comes, in one visit of the
/// kernel. A caller that died needs no answer.
fn next(
    answer: Option<(Endpoint, Message)>,
    waiting: &mut VecDeque<Received>,
) -> Result<Received, Errno> {
    match (answer, waiting.pop_front()) {
        (Some((to, reply)), None) => ipc::reply_receive(to, reply),
        (None, None) => ipc::receive(),
        (answer, Some(received)) => {
            if let Some((to, reply)) = answer {
                let _ = ipc::reply_raw(to, reply);
            }
            Ok(received)
        }
    }
}

fn main() -> ! {
    let made = dma::init(DMA_PAGES)
        .and_then(|()| window::open(DeviceType::Block))
        .and_then(Disk::new)
        .and_then(|disk| Ok((disk, Mishap::planned(&REQUESTS)?)));
    let status = made.as_ref().map_or_else(|errno| -(errno.0 as i64), |_| 0);
    rt::outbox::post(Endpoint::RS, Started { status });
    let (mut disk, mut mishap) = match made {
        Ok(made) => made,
        // RS ends a service that gave up.
        Err(_) => loop {
            let _ = ipc::receive();
        },
    };
    let mut host = Host {
        polled: window::polled(),
        ..Host::default()
    };
    let mut answered = None;
    loop {
        let Ok(received) = next(answered.take(), &mut host.waiting) else {
            continue;
        };
        if !rt::gate::admits(&received) {
            continue;
        }
        let (source, message) = (received.source, &received.message);
        match received.class {
            Class::Call => {
                let struck = mishap.as_mut().and_then(|m| m.strikes(message.kind));
                let reply = match struck {
                    Some(errno) => Message::error(errno),
                    None => answer(&mut disk, &mut host, source, message),
                };
                answered = Some((source, reply));
            }
            Class::Post => {
                if let Some(done) = special::answer(&mut disk, &mut host, source, message) {
                    rt::outbox::post(source, done);
                }
            }
            Class::Kernel => {
                let interrupted = note(received.message.words[0]);
                if interrupted {
                    disk.acknowledge();
                }
            }
            _ => {}
        }
    }
}
