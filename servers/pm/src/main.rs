//! The `pm` image: reads the run specification, loads the routes of Linux calls, serves.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::boot::{RunSpec, names, run_flags};
use abi::kernel::KernelNotify;
use abi::proto::rs::Started;
use abi::{Class, Endpoint, Errno, Message};
use alloc::string::String;
use alloc::vec;
use pm::machine::Machine;
use pm::{Boot, Pm};
use rt::{args, ipc, kernel, log, outbox};

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
    let mut pm = Pm::new(Machine::new(), boot);
    outbox::post(Endpoint::RS, Started { status: 0 });
    let mut answer = None;
    loop {
        let received = match answer.take() {
            Some((to, message)) => ipc::reply_receive(to, message),
            None => ipc::receive(),
        };
        let Ok(received) = received else {
            continue;
        };
        if received.source == Endpoint::KERNEL
            && received.class == Class::Kernel
            && received.message.words[0] & KernelNotify::OUTBOX.bits() != 0
        {
            outbox::flush();
        }
        pm.sys.received(&received);
        if !rt::heap::ready()
            && received.class == Class::Linux
            && pm::admission::refusable(received.message.kind)
        {
            answer = Some((received.source, Message::error(Errno::ENOMEM)));
            continue;
        }
        answer = pm.handle(received.source, received.class, &received.message);
    }
}
