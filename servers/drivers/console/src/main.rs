//! The console driver's image.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::boot::{RunHeader, RunSpec, names};
use abi::grant::{ToRead, ToWrite};
use abi::kernel::KernelNotify;
use abi::message::Handled;
use abi::proto::{self, fs, pm, vfs};
use abi::{Endpoint, Errno, Message};
use alloc::boxed::Box;
use alloc::vec;
use console::port::{DMA_PAGES, VirtioPort};
use console::server::Server;
use console::world::World;
use rt::fsserver::Desk;
use rt::ipc::{self, Received};
use rt::serve::{self, Last, Service};
use rt::{copy, kernel, outbox};
use virtio::window::{self, Registers, is_interrupt};
use virtio::{DeviceType, dma};

rt::entry!(main);

/// Kernel and servers, as they are.
struct System;

impl World for System {
    fn fetch(
        &mut self,
        granter: Endpoint,
        grant: ToRead,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Errno> {
        copy::safecopy_from(granter, grant, offset, buffer)
    }

    fn store(&mut self, granter: Endpoint, grant: ToWrite, buffer: &[u8]) -> Result<(), Errno> {
        copy::safecopy_to(granter, grant, 0, buffer)
    }

    fn answer(&mut self, asker: Endpoint, answer: Message) {
        outbox::post_message(asker, answer);
    }

    fn ready(&mut self, major: u32, minor: u32, events: u32) {
        outbox::post(
            Endpoint::VFS,
            vfs::Ready {
                major,
                minor,
                events,
            },
        );
    }

    fn raise(&mut self, group: u32, signal: i32) {
        outbox::post(Endpoint::PM, pm::RaiseGroup { group, signal });
    }

    fn hang_up(&mut self, session: u32) {
        outbox::post(Endpoint::PM, pm::HangUp { session });
    }

    fn end_run(&mut self) {
        outbox::post(Endpoint::PM, pm::EndRun {});
    }

    fn reply(&mut self, caller: Endpoint, message: Message) {
        // A caller that died needs no answer.
        let _ = ipc::reply_raw(caller, message);
    }

    fn now(&self) -> u64 {
        kernel::time_ns()
    }

    fn set_timer(&mut self, deadline: u64) {
        let _ = kernel::set_timer(deadline);
    }
}

/// How the run starts: what is a terminal, and how large it is.
fn run_header() -> Result<RunHeader, Errno> {
    let (entry, info) = kernel::module_find(names::RUN)?;
    let mut bytes = vec![0; info.len as usize];
    let len = kernel::module_read(entry, 0, &mut bytes)?;
    bytes.truncate(len);
    RunSpec::parse(&bytes).map(|run| run.header)
}

/// The driver as a service.
struct Console {
    port: VirtioPort<Registers>,
    server: Box<Server>,
    desk: Desk,
}

impl Service for Console {
    fn serve(&mut self, received: &Received) -> Handled {
        let Received {
            source,
            class,
            ref message,
        } = *received;
        match proto::base(message.kind) {
            fs::BASE => self.desk.serve(&mut self.server.devpts(&System), received),
            _ => self.server.serve(&mut System, source, class, message),
        }
    }

    fn notified(&mut self, bits: KernelNotify) {
        if bits.contains(KernelNotify::TIMER) {
            self.server.tick();
        }
        if is_interrupt(bits.bits()) {
            self.port.acknowledge();
        }
    }

    fn receive(&mut self, last: Option<Last>) -> Result<Received, Errno> {
        // What is not ready is said before that it has become so.
        if let Some(last) = last {
            last.leave();
        }
        // Input may have come before the interrupt was bound.
        let Console { port, server, .. } = self;
        port.receive(|bytes| server.receive(&mut System, bytes));
        server.run(&mut System, port);
        serve::receive(None)
    }
}

fn start() -> Result<Console, Errno> {
    dma::init(DMA_PAGES)?;
    let mut port = VirtioPort::new(window::open(DeviceType::Console)?)?;
    if window::polled() {
        port = port.polled();
    }
    let memory = kernel::boot_info().map_or(64 << 20, |info| info.for_programs());
    Ok(Console {
        port,
        server: Box::new(Server::new(&run_header()?, memory)),
        desk: Desk::default(),
    })
}

fn main() -> ! {
    serve::start(start())
}
