//! The `pm` image: reads the run specification, loads the routes of Linux calls, serves.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::boot::{RunSpec, names, run_flags};
use abi::kernel::KernelNotify;
use abi::message::Handled;
use abi::proto::rs::Started;
use abi::{Class, Endpoint, Errno, Message};
use alloc::string::String;
use alloc::vec;
use pm::machine::Machine;
use pm::{Boot, Pm};
use rt::ipc::Received;
use rt::serve::{self, Last};
use rt::{args, kernel, log, outbox};

rt::entry!(main);

fn boot() -> Result<Boot, Errno> {
    let (index, entry) = kernel::module_find(names::RUN)?;
    let mut bytes = vec![0; entry.len as usize];
    let read = kernel::module_read(index, 0, &mut bytes)?;
    let spec = RunSpec::parse(&bytes[..read])?;
    let header = spec.header;
    let program = spec.args().next().unwrap_or_default();
    Ok(Boot {
        epoch_ns: header.epoch_ns,
        seed: header.seed,
        verbose: header.flags & run_flags::VERBOSE != 0,
        accounts: header.flags & run_flags::DETERMINISTIC != 0,
        program: String::from_utf8_lossy(program).into_owned(),
        ids: (header.uid, header.gid),
        memory: kernel::boot_info().map_or(0, |info| info.for_programs()),
        console: None,
    })
}

fn main() -> ! {
    let mut boot = boot().unwrap_or_else(|errno| {
        log!("no run specification: {errno}");
        Boot::default()
    });
    boot.console = args::number("console").map(|number| Endpoint(number as u32));
    if let Err(errno) = kernel::set_linux_routes(&abi::routes::routes()) {
        log!("cannot load the routes of Linux calls: {errno}");
    }
    let pm = Pm::new(Machine::new(), boot);
    outbox::post(Endpoint::RS, Started { status: 0 });
    serve::run(&mut Service(pm))
}

/// PM as a service.
struct Service(Pm<Machine>);

impl serve::Service for Service {
    #[inline(always)]
    fn serve(&mut self, received: &Received) -> Handled {
        let Received {
            source,
            class,
            ref message,
        } = *received;
        let Service(pm) = self;
        if !rt::heap::ready() && class == Class::Linux && pm::admission::refusable(message.kind) {
            return Handled::answered(Message::error(Errno::ENOMEM));
        }
        pm.handle(source, class, message)
    }

    fn notified(&mut self, bits: KernelNotify) {
        self.0.notified(bits);
    }

    #[inline(always)]
    fn receive(&mut self, last: Option<Last>) -> Result<Received, Errno> {
        let received = serve::receive(last)?;
        self.0.sys.received(&received);
        Ok(received)
    }
}
