//! The console driver's image.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::boot::{RunHeader, RunSpec, names};
use abi::kernel::KernelNotify;
use abi::proto::{self, fs, pm, rs, vfs};
use abi::{Class, Endpoint, Errno, Message};
use alloc::boxed::Box;
use alloc::vec;
use console::port::{DMA_PAGES, VirtioPort};
use console::server::Server;
use console::world::World;
use rt::fsserver::Desk;
use rt::{copy, gate, ipc, kernel, outbox};
use virtio::window::{self, is_interrupt};
use virtio::{DeviceType, dma};

rt::entry!(main);

/// Kernel and servers, as they are.
struct System;

impl World for System {
    fn fetch(
        &mut self,
        granter: Endpoint,
        grant: i32,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Errno> {
        copy::safecopy_from(granter, grant, offset, buffer)
    }

    fn store(&mut self, granter: Endpoint, grant: i32, buffer: &[u8]) -> Result<(), Errno> {
        copy::safecopy_to(granter, grant, 0, buffer)
    }

    fn done(&mut self, asker: Endpoint, txn: u64, result: Result<u64, Errno>) {
        let (status, a) = match result {
            Ok(value) => (Ok(()), value),
            Err(errno) => (Err(errno), 0),
        };
        outbox::post(
            asker,
            vfs::Done {
                txn,
                status,
                a,
                b: 0,
                c: 0,
                d: 0,
                e: 0,
            },
        );
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

fn main() -> ! {
    let start = || {
        dma::init(DMA_PAGES)?;
        let mut port = VirtioPort::new(window::open(DeviceType::Console)?)?;
        if window::polled() {
            port = port.polled();
        }
        let memory = kernel::boot_info().map_or(64 << 20, |info| info.for_programs());
        Ok((port, Box::new(Server::new(&run_header()?, memory))))
    };
    let started: Result<_, Errno> = start();
    let status = started
        .as_ref()
        .map_or_else(|errno| -i64::from(errno.0), |_| 0);
    outbox::post(Endpoint::RS, rs::Started { status });
    let (mut port, mut server) = match started {
        Ok(parts) => parts,
        // RS ends a service that gave up.
        Err(_) => loop {
            let _ = ipc::receive();
        },
    };
    let world = &mut System;
    let mut desk = Desk::default();
    loop {
        // Input may have come before the interrupt was bound.
        port.receive(|bytes| server.receive(world, bytes));
        server.run(world, &mut port);
        let Ok(received) = ipc::receive() else {
            continue;
        };
        if !gate::admits(&received) {
            continue;
        }
        match received.class {
            Class::Post if proto::base(received.message.kind) == fs::BASE => {
                desk.answer(&mut server.devpts(world), &received);
            }
            Class::Post => server.post(world, received.source, &received.message),
            Class::Call => server.call(world, received.source, &received.message),
            Class::Kernel => {
                let bits = received.message.words[0];
                if bits & KernelNotify::OUTBOX.bits() != 0 {
                    outbox::flush();
                }
                if bits & KernelNotify::TIMER.bits() != 0 {
                    server.tick();
                }
                if is_interrupt(bits) {
                    port.acknowledge();
                }
            }
            _ => {}
        }
    }
}
