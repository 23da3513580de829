//! The virtio block driver's image.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::grant::{ToRead, ToWrite};
use abi::kernel::KernelNotify;
use abi::message::Handled;
use abi::proto::{self, block, disk};
use abi::{Class, Endpoint, Errno, Request};
use alloc::collections::VecDeque;
use rt::ipc::{self, Received};
use rt::mishap::Mishap;
use rt::serve::{self, Last};
use virtio::window::{self, Registers, is_interrupt};
use virtio::{DeviceType, dma};
use virtio_blk::disk::{DMA_PAGES, Disk};
use virtio_blk::serve::{Driver, Grants};

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
        grant: ToRead,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Errno> {
        rt::copy::safecopy_from(granter, grant, offset, buffer)
    }

    fn store(
        &mut self,
        granter: Endpoint,
        grant: ToWrite,
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
                    if is_interrupt(serve::noted(&received.message).bits()) {
                        return;
                    }
                }
                Ok(received) => self.waiting.push_back(received),
                Err(_) => {}
            }
        }
    }
}

/// The driver as a service.
struct Service {
    disk: Disk<Registers>,
    host: Host,
    mishap: Option<Mishap>,
}

impl serve::Service for Service {
    fn serve(&mut self, received: &Received) -> Handled {
        let Received {
            source,
            class,
            ref message,
        } = *received;
        let driver = &mut Driver {
            disk: &mut self.disk,
            grants: &mut self.host,
        };
        Mishap::or_serve(&mut self.mishap, received, || {
            match proto::base(message.kind) {
                disk::BASE => disk::serve(driver, source, class, message),
                _ => block::serve(driver, source, class, message),
            }
        })
    }

    fn notified(&mut self, bits: KernelNotify) {
        if is_interrupt(bits.bits()) {
            self.disk.acknowledge();
        }
    }

    /// What came while the device was waited for has its turn first.
    fn receive(&mut self, last: Option<Last>) -> Result<Received, Errno> {
        let Some(received) = self.host.waiting.pop_front() else {
            return serve::receive(last);
        };
        if let Some(last) = last {
            last.leave();
        }
        Ok(received)
    }
}

fn start() -> Result<Service, Errno> {
    dma::init(DMA_PAGES)?;
    let disk = Disk::new(window::open(DeviceType::Block)?)?;
    let mishap = Mishap::planned(&REQUESTS)?;
    let host = Host {
        polled: window::polled(),
        ..Host::default()
    };
    Ok(Service { disk, host, mishap })
}

fn main() -> ! {
    serve::start(start())
}
