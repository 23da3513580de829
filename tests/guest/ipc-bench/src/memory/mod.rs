//! The rows M of the test matrix, and K4: third-party memory control, and the page-in protocol
//! between VM and VFS. Here VM is the real one and its neighbours are the test's.
//!
//! The image boots in RS's place and copies itself, by third-party mappings, into the other
//! members of a cast:
//! * RS: creates and ends the others, and asks VM what only RS may ask;
//! * PM and a file system: services that do what VFS tells them, as people without RS's and
//!   VFS's rights;
//! * VFS: answers VM's page-ins as a row needs it, and checks the rows (`rows`);
//! * programs, whose memory it is about: they never run.

mod rows;
mod vfs;

use crate::{STACK, STACKS, check};
use abi::kernel::{Kcall, PRIV_COPY_ANY, Privileges};
use abi::proto::vm::{CacheRelease, CacheSet, Exit, MapFlags, Mmap, NewSpace, Prot};
use abi::role::Role;
use abi::{Class, Endpoint, Errno, Message, PAGE, Request};
use core::cell::UnsafeCell;
use proto::{Ask, Cast, Copied, Copy, Create, Created, End, Publish, Tell};
use rt::{copy, ipc, kernel};

/// What the cast says to each other.
#[allow(missing_docs)]
mod proto {
    use abi::{Endpoint, Errno};

    abi::protocol! {
        base = 0x7f00;
        servers = [SERVICES];

        /// RS posts VFS who plays.
        #[from(SERVICES)]
        post Cast = 1 { file_system: Endpoint, program: Endpoint, dead: Endpoint };
        /// Call VM: a request of one to five words. The reply is VM's.
        #[from(SERVICES)]
        call Ask = 2 { kind: u64, a: u64, b: u64, c: u64, d: u64, e: u64 };
        /// Post VM the like.
        #[from(SERVICES)]
        call Tell = 3 { kind: u64, a: u64, b: u64, c: u64, d: u64, e: u64 };
        /// Fill a page with [`super::byte`]s and put it into VM's cache.
        #[from(SERVICES)]
        call Publish = 4 { dev: u64, ino: u64, offset: u64, seed: u64 };
        /// Posted: copy a byte of a program's, without TRY; answered by [`Copied`].
        #[from(SERVICES)]
        post Copy = 5 { who: Endpoint, address: u64 };
        /// Posted to VFS.
        #[from(SERVICES)]
        post Copied = 6 { status: Result<(), Errno>, byte: u64 };
        /// RS makes a service like the file system, or a program.
        #[from(SERVICES)]
        call Create = 7 { service: bool } -> Created { who: Endpoint };
        /// RS ends a process as it does when one dies.
        #[from(SERVICES)]
        call End = 8 { who: Endpoint };
    }
}

/// Byte `offset` of a file with this seed; 0 is all zeroes.
const fn byte(seed: u64, offset: u64) -> u8 {
    if seed == 0 {
        return 0;
    }
    (seed * 31 + offset / PAGE * 7 + offset % PAGE + 1) as u8
}

/// The page that a file system publishes from.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE as usize]>);

// SAFETY: each process has its own copy, and one thread.
unsafe impl Sync for Page {}

static PUBLISHED: Page = Page(UnsafeCell::new([0; PAGE as usize]));

/// Whether the image boots in RS's place.
pub fn wanted() -> bool {
    kernel::proc_info(Endpoint::RS.slot()).is_ok()
}

/// RS.
pub fn direct() -> ! {
    let pm = check("pm", create_at(Role::Pm, service_main));
    let vfs = check("vfs", create_at(Role::Vfs, vfs::vfs));
    assert_eq!((pm, vfs), (Endpoint::PM, Endpoint::VFS));
    let cast = Cast {
        file_system: check("file system", create(true)),
        program: check("program", create(false)),
        dead: check("dead", create(false)),
    };
    check("end", end(cast.dead));
    check("cast", ipc::post_raw(vfs, cast.encode()));
    serve()
}

/// A service, or a program without code.
fn create(service: bool) -> Result<Endpoint, Errno> {
    if service {
        return create_at(Role::FileSystem, service_main);
    }
    let who = kernel::proc_create("program", Role::Program)?;
    ipc::call(Endpoint::VM, NewSpace { who, service })?;
    Ok(who)
}

/// A process that runs a copy of this image.
fn create_at(role: Role, entry: extern "C" fn() -> !) -> Result<Endpoint, Errno> {
    let who = kernel::proc_create("service", role)?;
    let calls = [Kcall::VirCopy, Kcall::Log, Kcall::PowerOff];
    let privileges = Privileges {
        kcalls: calls.iter().fold(0, |all, call| all | call.bit()),
        peers: [!0; 4],
        irqs: 0,
        flags: PRIV_COPY_ANY,
    };
    kernel::proc_priv(who, &privileges)?;
    ipc::call(Endpoint::VM, NewSpace { who, service: true })?;
    let (_, image) = kernel::module_find(abi::boot::names::RS)?;
    let map = Mmap {
        target: who,
        addr: image.address,
        len: image.memory_len,
        prot: Prot::all(),
        flags: MapFlags::THIRD_PARTY | MapFlags::FIXED | MapFlags::PREALLOC,
    };
    ipc::call(Endpoint::VM, map)?;
    let own = image.address as *const u8;
    // SAFETY: the image, which VM laid out there; nobody but the kernel reads through this.
    let own = unsafe { core::slice::from_raw_parts(own, image.memory_len as usize) };
    copy::write(who, image.address, own)?;
    let stack = &raw const STACKS as u64 + STACK as u64 - 8;
    kernel::proc_start(who, entry as *const () as u64, stack, 0)?;
    Ok(who)
}

/// What RS does when a service died.
fn end(who: Endpoint) -> Result<(), Errno> {
    ipc::call(Endpoint::VM, Exit { who })?;
    kernel::proc_exit(who)
}

extern "C" fn service_main() -> ! {
    serve()
}

/// Does what VFS says.
fn serve() -> ! {
    loop {
        let received = check("receive", ipc::receive());
        let (source, message) = (received.source, received.message);
        match (received.class, message.kind) {
            (Class::Call, Ask::KIND) => {
                let [kind, words @ ..] = message.words;
                let reply = check("vm", ipc::call_raw(Endpoint::VM, to_vm(kind, &words)));
                check("reply", ipc::reply_raw(source, reply));
            }
            (Class::Call, Tell::KIND) => {
                let [kind, words @ ..] = message.words;
                check("post", ipc::post_raw(Endpoint::VM, to_vm(kind, &words)));
                check("reply", ipc::reply(source, Ok(())));
            }
            (Class::Call, Publish::KIND) => {
                let request = Publish::decode(&message).map_or(Err(Errno::EINVAL), publish);
                check("reply", ipc::reply(source, request));
            }
            (Class::Post, Copy::KIND) => {
                let mut byte = [0];
                let status = match Copy::decode(&message) {
                    Some(request) => copy::read(request.who, request.address, &mut byte),
                    None => Err(Errno::EINVAL),
                };
                let byte = byte[0].into();
                let copied = Copied { status, byte };
                check("copied", ipc::post_raw(source, copied.encode()));
            }
            (Class::Call, Create::KIND) => {
                let who = Create::decode(&message).ok_or(Errno::EINVAL);
                let who = who.and_then(|request| create(request.service));
                check("reply", ipc::reply(source, who.map(|who| Created { who })));
            }
            (Class::Call, End::KIND) => {
                let who = End::decode(&message).ok_or(Errno::EINVAL);
                let ended = who.and_then(|request| end(request.who));
                check("reply", ipc::reply(source, ended));
            }
            // An answer of VM's to somebody whom it does not answer, or a death.
            (class, kind) => {
                rt::log!("unexpected {class:?} of kind {kind:#x} from {source}: {message:x?}");
                kernel::power_off(1)
            }
        }
    }
}

fn to_vm(kind: u64, words: &[u64]) -> Message {
    let mut message = Message::new(kind);
    message.words[..words.len()].copy_from_slice(words);
    message
}

/// What a file system does with a page that it was asked for.
fn publish(request: Publish) -> Result<(), Errno> {
    let Publish {
        dev,
        ino,
        offset,
        seed,
    } = request;
    for n in 0..PAGE {
        let value = byte(seed, offset + n);
        // SAFETY: inside the page, which nobody has a reference to.
        unsafe {
            PUBLISHED
                .0
                .get()
                .cast::<u8>()
                .add(n as usize)
                .write_volatile(value)
        };
    }
    let addr = PUBLISHED.0.get() as u64;
    let set = CacheSet {
        addr,
        dev,
        ino,
        offset,
    };
    ipc::call(Endpoint::VM, set)?;
    ipc::call(Endpoint::VM, CacheRelease { addr })
}
