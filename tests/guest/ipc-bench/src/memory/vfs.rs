//! VFS's part: what the rows are made of.

use super::byte;
use super::proto::{Ask, Cast, Copied, Publish, Tell};
use super::rows::ROWS;
use crate::check;
use abi::message::{answer_message, answer_result, reply_result, transaction};
use abi::proto::vfs::{MapClose, PageIn};
use abi::proto::vm::{
    CacheForget, HandleMemory, MapFlags, Mmap, Munmap, PROCCTL_CLEAR, ProcCtl, Prot, RegionAt,
    VfsMmap,
};
use abi::{Class, Endpoint, Errno, Message, PAGE, Request};
use core::fmt::Write;
use rt::{copy, ipc, kernel, log};

/// Where the rows map.
pub const AT: u64 = 0x5000_0000;
const DEV: u64 = 0x100;
pub const READ: Prot = Prot::READ;
pub const WRITE: Prot = Prot::READ.union(Prot::WRITE);
/// Page-ins of one row at most.
const NOTED: usize = 32;

/// What VM says of its own accord.
#[derive(Debug)]
pub enum Event {
    PageIn(Wanted),
    Handled(u64, Result<(), Errno>),
    Copied(Result<(), Errno>, u8),
}

/// A page that VM wants.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub txn: u64,
    pub ino: u64,
    pub offset: u64,
}

/// How VFS answers a page-in by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The file system publishes the page with this seed for each file.
    Page,
    /// The file system says that all is well, and there is no page: past the end.
    Nothing,
    /// There was one, and it is gone again when VM looks.
    OneUse,
    /// The disk is broken.
    Error(Errno),
}

pub struct Vfs {
    pub cast: Cast,
    pub way: Way,
    /// Which file contents the numbers stand for, beside the number itself.
    pub life: u64,
    /// Page-ins since the row began.
    asked: [(u64, u64); NOTED],
    count: usize,
    /// References that VM has on files: taken with a mapping, given back by messages.
    references: u64,
    txn: u64,
}

/// The process in VFS's place.
pub extern "C" fn vfs() -> ! {
    let received = check("cast", ipc::receive_from(Endpoint::RS));
    let cast = Cast::decode(&received.message);
    let Some(cast) = cast.filter(|_| received.message.kind == Cast::KIND) else {
        panic!("no cast: {:x?}", received.message);
    };
    let mut vfs = Vfs {
        cast,
        way: Way::Page,
        life: 0,
        asked: [(0, 0); NOTED],
        count: 0,
        references: 0,
        txn: 100,
    };
    for (name, row) in ROWS {
        row(&mut vfs);
        vfs.clean();
        let mut line = log::Line::new();
        let _ = write!(line, "row {name} ok");
        kernel::log(line.text());
    }
    kernel::power_off(0)
}

impl Vfs {
    /// The next thing VM says; what it gives back is counted.
    pub fn next(&mut self) -> Event {
        loop {
            let received = check("receive", ipc::receive());
            let (source, message) = (received.source, received.message);
            assert_eq!(received.class, Class::Post, "from {source}: {message:x?}");
            match message.kind {
                Copied::KIND => {
                    let Copied { status, byte } = decoded(&message);
                    return Event::Copied(status, byte as u8);
                }
                _ if source != Endpoint::VM => panic!("{source} says {message:x?}"),
                PageIn::KIND => {
                    let request: PageIn = decoded(&message);
                    assert_eq!(request.dev, DEV);
                    self.asked[self.count] = (request.ino, request.offset);
                    self.count += 1;
                    return Event::PageIn(Wanted {
                        txn: transaction(&message),
                        ino: request.ino,
                        offset: request.offset,
                    });
                }
                HandleMemory::ANSWER => {
                    let present = answer_result::<HandleMemory>(&message);
                    let status = present.and_then(|present| present.status);
                    return Event::Handled(transaction(&message), status);
                }
                MapClose::KIND => {
                    let close: MapClose = decoded(&message);
                    for gone in close.files {
                        self.references -= gone.count;
                    }
                }
                _ => panic!("VM says {message:x?}"),
            }
        }
    }

    pub fn page_in(&mut self) -> Wanted {
        match self.next() {
            Event::PageIn(request) => request,
            other => panic!("{other:?} instead of a page-in"),
        }
    }

    pub fn handled(&mut self) -> (u64, Result<(), Errno>) {
        match self.next() {
            Event::Handled(txn, status) => (txn, status),
            other => panic!("{other:?} instead of an answer"),
        }
    }

    /// The files and offsets of the page-ins since the row began.
    pub fn asked(&self) -> &[(u64, u64)] {
        &self.asked[..self.count]
    }

    /// Brings the page, or not, and answers.
    pub fn answer(&mut self, request: Wanted) {
        let Wanted { txn, ino, offset } = request;
        let status = match self.way {
            Way::Error(errno) => Err(errno),
            Way::Nothing => Ok(()),
            Way::Page | Way::OneUse => {
                self.publish(ino, offset, ino + self.life);
                if self.way == Way::OneUse {
                    self.forget(ino);
                }
                Ok(())
            }
        };
        self.done(txn, status);
    }

    pub fn done(&self, txn: u64, status: Result<(), Errno>) {
        check("post", ipc::post_raw(Endpoint::VM, paged(txn, status)));
    }

    pub fn publish(&mut self, ino: u64, offset: u64, seed: u64) {
        let request = Publish {
            dev: DEV,
            ino,
            offset,
            seed,
        };
        check("publish", ipc::call(self.cast.file_system, request));
    }

    pub fn forget(&mut self, ino: u64) {
        let forget = CacheForget {
            dev: DEV,
            ino,
            offset: 0,
            end: u64::MAX,
        };
        check("forget", ask(self.cast.file_system, forget));
    }

    /// Posts that memory is to be handled; its transaction.
    pub fn want(&mut self, who: Endpoint, addr: u64, len: u64, write: bool) -> u64 {
        self.txn += 1;
        let request = HandleMemory {
            who,
            addr,
            len,
            write,
        };
        check("post", ipc::post_raw(Endpoint::VM, request.ask(self.txn)));
        self.txn
    }

    /// Has the program's memory handled, and answers page-ins meanwhile.
    pub fn handle(&mut self, addr: u64, len: u64, write: bool) -> Result<(), Errno> {
        self.handle_of(self.cast.program, addr, len, write)
    }

    pub fn handle_of(
        &mut self,
        who: Endpoint,
        addr: u64,
        len: u64,
        write: bool,
    ) -> Result<(), Errno> {
        let txn = self.want(who, addr, len, write);
        loop {
            match self.next() {
                Event::PageIn(request) => self.answer(request),
                Event::Handled(answered, status) if answered == txn => return status,
                other => panic!("{other:?} instead of the answer to {txn}"),
            }
        }
    }

    /// VM has nothing more to say: all that it said before has arrived with this answer.
    pub fn silence(&mut self) {
        let nobody = self.cast.dead;
        let txn = self.want(nobody, AT, PAGE, false);
        assert_eq!(self.handled(), (txn, Err(Errno::ESRCH)));
    }

    /// Maps a file into the program.
    pub fn file(&mut self, addr: u64, pages: u64, prot: Prot, ino: u64) {
        let program = self.cast.program;
        check("VfsMmap", self.map_file(program, addr, pages, prot, ino, 0));
    }

    pub fn map_file(
        &mut self,
        target: Endpoint,
        addr: u64,
        pages: u64,
        prot: Prot,
        ino: u64,
        clear_end: u64,
    ) -> Result<(), Errno> {
        let map = VfsMmap {
            target,
            dev: DEV,
            ino,
            offset: 0,
            addr,
            len: pages * PAGE,
            prot_clearend: prot.bits() | clear_end << 16,
        };
        let mapped = ipc::call(Endpoint::VM, map);
        self.references += u64::from(mapped.is_ok());
        mapped
    }

    pub fn anonymous(&mut self, addr: u64, pages: u64, prot: Prot) {
        let map = Mmap {
            prot,
            ..third_party(self.cast.program, addr, pages * PAGE)
        };
        let mapped = check("Mmap", ipc::call(Endpoint::VM, map));
        assert_eq!(mapped.addr, addr);
    }

    pub fn unmap(&mut self, addr: u64, pages: u64) {
        let unmap = Munmap {
            target: self.cast.program,
            addr,
            len: pages * PAGE,
        };
        check("Munmap", ipc::call(Endpoint::VM, unmap));
    }

    /// A page of the program's, if it is there: nobody makes it present for this.
    pub fn page(&self, addr: u64) -> Option<[u8; PAGE as usize]> {
        let mut page = [0xee; PAGE as usize];
        match copy::try_read(self.cast.program, addr, &mut page) {
            Ok(()) => Some(page),
            Err(errno) => {
                assert_eq!(errno, Errno::EFAULT);
                None
            }
        }
    }

    pub fn absent(&self, addr: u64) -> bool {
        self.page(addr).is_none()
    }

    /// Whether all bytes of a page are those of a file's page.
    pub fn holds(&self, addr: u64, seed: u64, offset: u64) -> bool {
        let page = self.page(addr);
        let mut expected = (offset..).map(|at| byte(seed, at));
        page.is_some_and(|page| page.iter().all(|&b| Some(b) == expected.next()))
    }

    pub fn full_of(&self, addr: u64, value: u8) -> bool {
        self.page(addr)
            .is_some_and(|page| page.iter().all(|&b| b == value))
    }

    /// Fills a page that is there and writable.
    pub fn fill(&self, addr: u64, value: u8) {
        let page = [value; PAGE as usize];
        check("fill", copy::try_write(self.cast.program, addr, &page));
    }

    /// How many regions a process has.
    pub fn regions(&self, who: Endpoint) -> u64 {
        let gone = |&index: &u64| ipc::call(Endpoint::VM, RegionAt { who, index }).is_err();
        (0..).find(gone).unwrap_or(0)
    }

    /// The program's memory is empty again, and no file is used; the caches are empty, too.
    pub fn clean(&mut self) {
        let who = self.cast.program;
        check("clear", ipc::call(Endpoint::VM, clear(who)));
        assert_eq!(self.regions(who), 0);
        for ino in 1..8 {
            self.forget(ino);
        }
        self.silence();
        assert_eq!(self.references, 0, "every mapping gave its file back");
        self.way = Way::Page;
        self.life = 0;
        self.count = 0;
    }
}

fn decoded<R: Request>(message: &Message) -> R {
    match R::decode(message) {
        Some(request) => request,
        None => panic!("{} of {message:x?}", R::NAME),
    }
}

/// VM's question `txn` is answered. Number 0 is nobody's, and yet a message.
pub fn paged(txn: u64, status: Result<(), Errno>) -> Message {
    answer_message(PageIn::KIND, txn, status)
}

/// Has another service call VM.
pub fn ask<R: Request>(by: Endpoint, request: R) -> Result<R::Reply, Errno> {
    let message = request.encode();
    let [a, b, c, d, e, ..] = message.words;
    let kind = message.kind;
    let ask = Ask {
        kind,
        a,
        b,
        c,
        d,
        e,
    };
    reply_result(&check("ask", ipc::call_raw(by, ask.encode())))
}

/// Has another service post to VM.
pub fn tell(by: Endpoint, message: Message) {
    let [a, b, c, d, e, ..] = message.words;
    let kind = message.kind;
    let tell = Tell {
        kind,
        a,
        b,
        c,
        d,
        e,
    };
    check("tell", ipc::call(by, tell));
}

pub fn third_party(target: Endpoint, addr: u64, len: u64) -> Mmap {
    Mmap {
        target,
        addr,
        len,
        prot: WRITE,
        flags: MapFlags::THIRD_PARTY | MapFlags::FIXED,
    }
}

pub fn clear(who: Endpoint) -> ProcCtl {
    ProcCtl {
        param: PROCCTL_CLEAR,
        who,
    }
}
