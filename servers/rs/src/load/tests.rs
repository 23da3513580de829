//! An exec that fails at every step, and at everything it asks for.

use super::failure::{Failure, Fault, Stage};
use super::{CHUNK, Host, Loader, Module, Order};
use abi::kernel::Privileges;
use abi::message::reply_message;
use abi::message::request::Called;
use abi::proto::vm::{AllowPhysical, Exit, MapFlags, Mapped, Mmap, NewSpace, Prot, Protect};
use abi::{Endpoint, Errno, Fields, Message, PAGE, Request};
use std::collections::BTreeMap;
use std::format;
use std::string::ToString;
use std::vec::Vec;

// libexec's own files made to order.
#[allow(dead_code)]
#[path = "../../../../libexec/src/tests/elf_file.rs"]
mod elf_file;

use elf_file::{EXEC, R, W, X, file, load};

const WHO: Endpoint = Endpoint::new(7, 2);
const IMAGE: &str = "service";
const DATA: u64 = 0x50_0010;
const DATA_LEN: u64 = CHUNK as u64 + 5000;

/// Kernel and VM as strict as the real ones, and asked for nothing in vain.
#[derive(Default)]
struct World {
    image: Vec<u8>,
    /// The process's pages, if it has a space.
    space: Option<BTreeMap<u64, (Vec<u8>, Prot)>>,
    window: Option<(u64, u64)>,
    privileges: bool,
    started: Option<(u64, u64)>,
    /// Questions so far, and the one that is refused.
    asked: usize,
    refuse: usize,
}

impl World {
    fn ask(&mut self) -> Result<(), Errno> {
        self.asked += 1;
        match self.asked == self.refuse {
            true => Err(Errno::ENOMEM),
            false => Ok(()),
        }
    }

    fn pages(&mut self) -> Result<&mut BTreeMap<u64, (Vec<u8>, Prot)>, Errno> {
        self.space.as_mut().ok_or(Errno::ESRCH)
    }

    fn handle(&mut self, message: &Message) -> Result<[u64; 7], Errno> {
        if let Some(new) = decoded::<NewSpace>(message) {
            assert!(new.who == WHO && new.service && self.space.is_none());
            self.space = Some(BTreeMap::new());
        } else if let Some(map) = decoded::<Mmap>(message) {
            let flags = MapFlags::FIXED | MapFlags::THIRD_PARTY | MapFlags::PREALLOC;
            assert_eq!((map.target, map.flags), (WHO, flags));
            assert!(map.addr.is_multiple_of(PAGE) && map.len > 0);
            for at in (map.addr..map.addr + map.len).step_by(PAGE as usize) {
                let page = (std::vec![0; PAGE as usize], map.prot);
                assert!(self.pages()?.insert(at, page).is_none(), "mapped twice");
            }
            return Ok(reply_message(Ok(Mapped { addr: map.addr })).words);
        } else if let Some(protect) = decoded::<Protect>(message) {
            let end = protect.addr + protect.len;
            for (_, page) in self.pages()?.range_mut(protect.addr..end) {
                page.1 = protect.prot;
            }
        } else if let Some(allow) = decoded::<AllowPhysical>(message) {
            assert!(self.space.is_some(), "VM knows no such process");
            self.window = Some((allow.phys, allow.len));
        } else if let Some(exit) = decoded::<Exit>(message) {
            assert_eq!(exit.who, WHO);
            self.space.take().ok_or(Errno::ESRCH)?;
        } else {
            panic!("VM is asked {message:x?}");
        }
        Ok([0; 7])
    }
}

fn decoded<R: Request>(message: &Message) -> Option<R> {
    (message.kind == R::KIND).then(|| R::decode(message).unwrap())
}

impl Host for &mut World {
    fn find(&mut self, image: &str) -> Result<Module, Errno> {
        self.ask()?;
        assert_eq!(image, IMAGE);
        let len = self.image.len() as u64;
        Ok(Module { index: 3, len })
    }

    fn read(&mut self, module: Module, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.ask()?;
        assert_eq!(module.index, 3);
        // Never all at once.
        let rest = self.image.get(offset as usize..).unwrap_or(&[]);
        let n = buffer.len().min(rest.len()).min(40_000);
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn vm<R: Request<How: Called>>(&mut self, request: R) -> Result<R::Reply, Errno> {
        // To give back is not refused.
        if R::KIND != Exit::KIND {
            self.ask()?;
        }
        let words = self.handle(&request.encode())?;
        R::Reply::take(&words, 0).ok_or(Errno::EIO)
    }

    fn write(&mut self, who: Endpoint, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.ask()?;
        assert_eq!(who, WHO);
        for (at, &byte) in (address..).zip(bytes) {
            let page = self.pages()?.get_mut(&(at / PAGE * PAGE));
            let (page, prot) = page.ok_or(Errno::EFAULT)?;
            assert!(prot.contains(Prot::WRITE));
            page[(at % PAGE) as usize] = byte;
        }
        Ok(())
    }

    fn privileges(&mut self, who: Endpoint, _: &Privileges) -> Result<(), Errno> {
        self.ask()?;
        self.privileges = who == WHO;
        Ok(())
    }

    fn priority(&mut self, _: Endpoint, _: u64) -> Result<(), Errno> {
        self.ask()
    }

    fn start(&mut self, who: Endpoint, pc: u64, sp: u64) -> Result<(), Errno> {
        self.ask()?;
        assert!(who == WHO && self.space.is_some() && self.started.is_none());
        self.started = Some((pc, sp));
        Ok(())
    }
}

fn image() -> Vec<u8> {
    let headers = [
        load(R | X, 0x1000, 0x40_0000, 3000, 3000),
        load(R | W, 0x2010, DATA, DATA_LEN, DATA_LEN + 9000),
    ];
    file(EXEC, 0x40_0100, &headers, 0x2010 + DATA_LEN as usize)
}

fn exec(world: &mut World, fault: Option<Fault>) -> Result<(), Failure> {
    let order = Order {
        who: WHO,
        image: IMAGE,
        stack: 64 << 10,
        arguments: &["service", "mmio=0x1000"],
        privileges: Privileges::default(),
        priority: 3,
        window: Some((0x1000, PAGE)),
    };
    Loader::new(world).exec(&order, fault)
}

fn world(refuse: usize) -> World {
    World {
        image: image(),
        refuse,
        ..World::default()
    }
}

/// Nothing is left of an exec that failed.
fn given_back(world: &World) {
    assert!(world.space.is_none(), "its memory is free");
    assert_eq!(world.started, None);
}

#[test]
fn a_service_is_what_its_image_says() {
    let mut world = world(0);
    assert_eq!(exec(&mut world, None), Ok(()));
    let (pc, sp) = world.started.unwrap();
    assert_eq!(pc, 0x40_0100);
    assert!(world.privileges);
    assert_eq!(world.window, Some((0x1000, PAGE)));
    let pages = world.space.unwrap();
    let byte = |at: u64| pages[&(at / PAGE * PAGE)].0[(at % PAGE) as usize];
    for n in 0..DATA_LEN {
        assert_eq!(byte(DATA + n), world.image[0x2010 + n as usize]);
    }
    assert!((DATA_LEN..DATA_LEN + 9000).all(|n| byte(DATA + n) == 0));
    assert_eq!(pages[&0x40_0000].1, Prot::READ | Prot::EXEC);
    assert_eq!(byte(sp), 2, "argc");
}

#[test]
fn a_failure_at_any_step_gives_all_back() {
    let mut seen = Vec::new();
    for number in 1.. {
        let mut world = world(0);
        let fault = Fault::parse(&format!("{number}:5"));
        let Err(failure) = exec(&mut world, fault) else {
            break;
        };
        assert_eq!((failure.number, failure.errno), (number, Errno::EIO));
        given_back(&world);
        let text = failure.to_string();
        let start = format!("step {number} of its exec, ");
        assert!(
            text.starts_with(&start) && text.ends_with(": EIO"),
            "{text}"
        );
        assert!(!seen.contains(&failure.stage));
        seen.push(failure.stage);
    }
    assert_eq!(
        (seen.first(), seen.last()),
        (Some(&Stage::Find), Some(&Stage::Start))
    );
    // Six before libexec's, which are at least a mapping, a copy and a protection for the
    // text, the like for the data, the address space and the stack; three after them.
    assert!(seen.len() >= 6 + 7 + 3, "{seen:x?}");
}

#[test]
fn a_refusal_of_anything_gives_all_back() {
    for refuse in 1.. {
        let mut world = world(refuse);
        let result = exec(&mut world, None);
        if world.asked < refuse {
            assert_eq!(result, Ok(()));
            // The data takes more than one read and write.
            assert!(refuse > 16);
            return;
        }
        assert_eq!(result.map_err(|failure| failure.errno), Err(Errno::ENOMEM));
        given_back(&world);
    }
}

#[test]
fn an_image_that_is_none_or_has_a_linker_is_refused() {
    for damaged in [
        Vec::new(),
        image()[..0x2000].to_vec(),
        b"#!/bin/sh\n".to_vec(),
    ] {
        let mut world = World {
            image: damaged,
            ..World::default()
        };
        let failure = exec(&mut world, None).unwrap_err();
        assert_eq!(
            (failure.stage, failure.errno),
            (Stage::Plan, Errno::ENOEXEC)
        );
        given_back(&world);
    }
}

#[test]
fn failures_are_a_number_and_an_error() {
    assert!(Fault::parse("3:12").is_some());
    for text in [
        "", "3", "0:5", "3:0", "3:-5", "x:5", "3:x", "3:5:6", "3:crash",
    ] {
        assert_eq!(Fault::parse(text), None, "{text}");
    }
}
