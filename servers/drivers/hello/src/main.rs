//! A driver to start from (docs/server.md): whoever reads its device is greeted, and what is written to it is the
//! greeting from then on.
#![cfg_attr(guest_image, no_std, no_main)]

extern crate alloc;

use abi::grant::{ToRead, ToWrite};
use abi::message::{Handled, Server};
use abi::proto::device::{self, Events, Moved, Opened};
use abi::{Endpoint, Errno};
use rt::copy;
use rt::ipc::Received;
use rt::serve::Service;

rt::entry!(main);

/// The longest greeting, bytes.
const LONGEST: usize = 64;

struct Hello {
    greeting: [u8; LONGEST],
    len: usize,
}

impl Hello {
    /// Copies the greeting to the reader. The grant is a failable one: where the reader's page is absent the copy says
    /// `EFAULT`, nothing has happened yet, and VFS asks again once the page is there.
    fn read(&mut self, vfs: Endpoint, grant: ToWrite, room: u64) -> Result<Moved, Errno> {
        let len = self.len.min(usize::try_from(room).unwrap_or(LONGEST));
        copy::safecopy_to(vfs, grant, 0, &self.greeting[..len])?;
        Ok(Moved { bytes: len as u64 })
    }

    /// Takes a greeting. It is changed only after the copy that may fail.
    fn write(&mut self, vfs: Endpoint, grant: ToRead, bytes: u64) -> Result<Moved, Errno> {
        let len = usize::try_from(bytes).unwrap_or(LONGEST).min(LONGEST);
        let mut greeting = [0; LONGEST];
        copy::safecopy_from(vfs, grant, 0, &mut greeting[..len])?;
        (self.greeting, self.len) = (greeting, len);
        Ok(Moved { bytes: len as u64 })
    }
}

impl Server for Hello {}

// One line for each operation of the protocol: a server that lacks one does not compile.
abi::serve! { [] Hello;
    device::Read => |hello, from, r| hello.read(from.who, r.grant, r.len);
    device::Write => |hello, from, r| hello.write(from.who, r.grant, r.len);
    device::Ioctl => |_hello, _, _| Err(Errno::ENOTTY);
    device::Poll => |_hello, _, r| Ok(Events { events: r.events });
    device::Open => |_hello, _, r| Ok(Opened { minor: r.minor });
    device::Close => |_hello, _, _| ();
    // Nothing waits here, so there is nothing to cancel.
    device::Cancel => |_hello, _, _| ();
}

impl Service for Hello {
    fn serve(&mut self, received: &Received) -> Handled {
        device::serve(self, received.source, received.class, &received.message)
    }
}

fn main() -> ! {
    let mut greeting = [0; LONGEST];
    let text = b"hello, world\n";
    greeting[..text.len()].copy_from_slice(text);
    let len = text.len();
    // RS is told that it is there; from then on it serves.
    rt::serve::start(Ok(Hello { greeting, len }))
}
