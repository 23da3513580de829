//! The virtio block driver's image.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::proto::rs::Started;
use abi::{Class, Endpoint, Errno};
use alloc::collections::VecDeque;
use rt::abi::kernel::KernelNotify;
use rt::ipc::{self, Received};
use virtio::window::{self, is_interrupt};
use virtio::{DeviceType, dma};
use virtio_blk::disk::{DMA_PAGES, Disk};
use virtio_blk::serve::{Grants, answer};

rt::entry!(main);

/// The kernel's copies, and callers that wait for their turn.
#[derive(Default)]
struct Host {
    waiting: VecDeque<Received>,
}

impl Grants for Host {
    fn fetch(&mut self, granter: Endpoint, grant: i32, buffer: &mut [u8]) -> Result<(), Errno> {
        rt::copy::safecopy_from(granter, grant, 0, buffer)
    }

    fn store(&mut self, granter: Endpoint, grant: i32, buffer: &[u8]) -> Result<(), Errno> {
        rt::copy::safecopy_to(granter, grant, 0, buffer)
    }

    fn wait(&mut self) {
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

fn main() -> ! {
    let disk = dma::init(DMA_PAGES)
        .and_then(|()| window::open(DeviceType::Block))
        .and_then(Disk::new);
    let status = disk.as_ref().map_or_else(|errno| -(errno.0 as i64), |_| 0);
    rt::outbox::post(Endpoint::RS, Started { status });
    let mut disk = match disk {
        Ok(disk) => disk,
        // RS ends a service that gave up.
        Err(_) => loop {
            let _ = ipc::receive();
        },
    };
    let mut host = Host::default();
    loop {
        let next = host.waiting.pop_front().map_or_else(ipc::receive, Ok);
        let Ok(received) = next else { continue };
        match received.class {
            Class::Call => {
                let reply = answer(&mut disk, &mut host, received.source, &received.message);
                // A caller that died needs no answer.
                let _ = ipc::reply_raw(received.source, reply);
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
