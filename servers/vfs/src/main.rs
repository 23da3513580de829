//! VFS's image.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::kernel::KernelNotify;
use abi::message::Handled;
use abi::proto::rs;
use abi::{Class, Endpoint, Errno, Message};
use alloc::rc::Rc;
use rt::ipc::Received;
use rt::serve::{self, Last, Service};
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
    serve::run(&mut Files {
        native,
        executor,
        vfs,
    })
}

/// VFS as a service.
struct Files {
    native: Rc<Native>,
    executor: Executor,
    vfs: Rc<Vfs>,
}

impl Service for Files {
    #[inline(always)]
    fn serve(&mut self, received: &Received) -> Handled {
        let Received {
            source,
            class,
            ref message,
        } = *received;
        if !rt::heap::ready() && class == Class::Linux && admission::refusable(message.kind) {
            return Handled::answered(Message::error(Errno::ENOMEM));
        }
        Handled {
            answer: None,
            refused: self.vfs.message(source, class, message),
        }
    }

    fn notified(&mut self, bits: KernelNotify) {
        if bits.contains(KernelNotify::TIMER) {
            self.vfs.base.timers.expired();
        }
    }

    #[inline(always)]
    fn receive(&mut self, last: Option<Last>) -> Result<Received, Errno> {
        if let Some(last) = last {
            self.native.send(last);
        }
        self.executor.run();
        self.native.receive()
    }
}
