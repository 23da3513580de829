//! VFS's image: the message loop.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::proto::rs;
use abi::{Class, Endpoint, Errno, Message};
use alloc::rc::Rc;
use rt::task::Executor;
use vfs::admission;
use vfs::machine::Machine;
use vfs::native::Native;
use vfs::state::Vfs;

rt::entry!(main);

fn main() -> ! {
    let native = Rc::new(Native::new());
    let machine: Rc<dyn Machine> = native.clone();
    let mut executor = Executor::new();
    if rt::kernel::boot_info().is_ok_and(|info| info.deciding != 0) {
        executor.set_chooser(rt::kernel::decide);
    }
    let vfs = Vfs::new(machine, executor.spawner());
    rt::outbox::post(Endpoint::RS, rs::Started { status: 0 });
    loop {
        // A failed receive has nothing to say about any message.
        let Ok(received) = native.receive() else {
            continue;
        };
        if received.class == Class::Kernel {
            if native.notified(received.message.words[0]) {
                vfs.timers.expired();
            }
        } else if !rt::heap::ready()
            && received.class == Class::Linux
            && admission::refusable(received.message.kind)
        {
            native.reply(received.source, Message::error(Errno::ENOMEM));
        } else {
            vfs.message(received.source, received.class, &received.message);
        }
        executor.run();
    }
}
