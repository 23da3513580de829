//! The rows G and K of the test matrix that one address space can show: grants and copies at
//! the kernel's own interface. Chosen by the word `rows` on the kernel's command line.
//!
//! The process in VM's slot is the granter and the pager; a helper in the same address space
//! copies and checks. "Absent" is a page-table entry without its present bit, which the pager
//! sets again when the kernel asks. A second helper waits for the rows that need three. One line a row: `row NAME ok`, or a panic that says what
//! was wrong.

use crate::check;
use abi::grant::{self, Access, Cpf, GRANT_INVALID, GrantEntry, GrantTo};
use abi::kernel::{In, Kcall, KernelNotify, PageFault, SafeCopy, VM_WINDOW, answered, calls};
use abi::policy::CopyPolicy;
use abi::{Class, Endpoint, Errno, Message, PAGE};
use core::cell::UnsafeCell;
use core::fmt::Write;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::{grants, ipc, kernel, log};

mod along;
mod ungranted;

const ENTRIES: usize = 8;
const PAGES: u64 = 8;

/// Memory that several processes and the kernel change.
#[repr(C, align(4096))]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: one processor, and processes that wait for each other; contents are only accessed
// through pointers.
unsafe impl<T> Sync for Shared<T> {}

static GRANTER: Shared<[GrantEntry; ENTRIES]> =
    Shared(UnsafeCell::new([GrantEntry::FREE; ENTRIES]));
static HELPER: Shared<[GrantEntry; ENTRIES]> = Shared(UnsafeCell::new([GrantEntry::FREE; ENTRIES]));
static MEMORY: Shared<[u8; (PAGES * PAGE) as usize]> =
    Shared(UnsafeCell::new([0; (PAGES * PAGE) as usize]));
/// The helper's endpoint.
static HELPER_IS: AtomicU32 = AtomicU32::new(0);
/// Requests that the pager got, and the last one's write flag.
static REQUESTS: AtomicU64 = AtomicU64::new(0);
static WRITE: AtomicU64 = AtomicU64::new(0);
/// Notifications that came with requests, and page faults.
static NOTIFIED: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);
/// The second helper's endpoint, and an address on its stack.
static SECOND_IS: AtomicU32 = AtomicU32::new(0);
static SECOND_STACK: AtomicU64 = AtomicU64::new(0);
/// The grant of row G12.
static GRANT: AtomicU32 = AtomicU32::new(0);
/// A page that the pager refuses, an address.
static REFUSED: AtomicU64 = AtomicU64::new(0);

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;

fn command_line<T>(find: impl FnOnce(&[u8]) -> T) -> T {
    let mut line = [0; 1024];
    let n = kernel::command_line(&mut line).unwrap_or(0).min(line.len());
    find(&line[..n])
}

/// Whether the rows were asked for.
pub fn wanted() -> bool {
    command_line(|line| line.split(|&b| b == b' ').any(|word| word == b"rows"))
}

/// Whether copies that may fail are parked first: then there is one row only, G12.
fn parks() -> bool {
    command_line(CopyPolicy::of_command_line) == CopyPolicy::FileOnly
}

fn page(n: u64) -> u64 {
    MEMORY.0.get() as u64 + n * PAGE
}

/// The page-table entry of an address, through the window.
pub fn entry(address: u64) -> *mut u64 {
    let mut table = check("info", kernel::proc_info(Endpoint::VM.slot())).cr3;
    for shift in [39, 30, 21, 12] {
        let at = (VM_WINDOW + (table & !0xfff) + (address >> shift & 511) * 8) as *mut u64;
        if shift == 12 {
            return at;
        }
        // SAFETY: a page table of this address space, seen through the window.
        table = unsafe { at.read_volatile() } & abi::page_table::ADDRESS;
    }
    unreachable!()
}

fn change(n: u64, clear: u64, set: u64) {
    let at = entry(page(n));
    // SAFETY: see `entry`; nobody else changes this entry.
    unsafe { at.write_volatile(at.read_volatile() & !clear | set) };
}

/// Fills page `n`, whatever its entry allows.
fn fill(n: u64, byte: u8) {
    // SAFETY: the frame of a page of MEMORY, seen through the window.
    unsafe { window(n).write_bytes(byte, PAGE as usize) };
}

fn window(n: u64) -> *mut u8 {
    // SAFETY: see `entry`.
    let frame = unsafe { entry(page(n)).read_volatile() } & abi::page_table::ADDRESS;
    (VM_WINDOW + frame) as *mut u8
}

fn holds(n: u64, byte: u8) -> bool {
    // SAFETY: as `fill`.
    (0..PAGE as usize).all(|i| unsafe { window(n).add(i).read_volatile() } == byte)
}

/// All pages present and writable, page `n` full of `n + 1`; no requests yet.
fn reset() {
    for n in 0..PAGES {
        change(n, 0, PRESENT | WRITABLE);
        fill(n, n as u8 + 1);
    }
    for counter in [&REQUESTS, &NOTIFIED, &FAULTS] {
        counter.store(0, Ordering::Relaxed);
    }
    REFUSED.store(0, Ordering::Relaxed);
}

/// The pager.
pub fn page_for_ever(helper: Endpoint, second: Endpoint) -> ! {
    HELPER_IS.store(helper.0, Ordering::Relaxed);
    SECOND_IS.store(second.0, Ordering::Relaxed);
    if parks() {
        late_marks(helper);
    }
    check("grants", set_grants(&GRANTER));
    ungranted::physical();
    check("go", ipc::notify(helper));
    loop {
        let received = check("receive", ipc::receive());
        if received.class == Class::PageFault {
            let fault = PageFault::of(&received.message);
            FAULTS.fetch_add(1, Ordering::Relaxed);
            let at = entry(fault.address);
            // SAFETY: see `change`.
            unsafe { at.write_volatile(at.read_volatile() | PRESENT) };
            check("resume", ipc::reply_status(received.source, Ok(0)));
            continue;
        }
        let bits = KernelNotify::of(&received.message);
        if received.class != Class::Kernel || !bits.contains(KernelNotify::MEMREQ) {
            continue;
        }
        NOTIFIED.fetch_add(1, Ordering::Relaxed);
        while let Ok(request) = kernel::memreq_get() {
            REQUESTS.fetch_add(1, Ordering::Relaxed);
            WRITE.store(request.write, Ordering::Relaxed);
            let (first, pages) = abi::kernel::page_span(request.address, request.len);
            let mut result = Ok(());
            for at in (0..pages).map(|n| first + n * PAGE) {
                if at == REFUSED.load(Ordering::Relaxed) {
                    result = Err(Errno::EFAULT);
                    break;
                }
                let bits = if request.write != 0 {
                    PRESENT | WRITABLE
                } else {
                    PRESENT
                };
                let place = entry(at);
                // SAFETY: see `change`.
                unsafe { place.write_volatile(place.read_volatile() | bits) };
            }
            check(
                "reply",
                kernel::memreq_reply(Endpoint(request.requestor), result),
            );
        }
    }
}

/// G12, with the grants of the library that every server uses: a copy through a grant is
/// parked, the granter revokes the grant and issues its entry again, and only then the copy
/// fails and leaves its mark there. First without all that: the mark counts.
fn late_marks(helper: Endpoint) -> ! {
    reset();
    change(0, PRESENT, 0);
    let issue = || {
        let access = Access::Read;
        check(
            "grant",
            grants::magic(helper, Endpoint::VM, page(0), PAGE, access),
        )
    };
    for reissued in [false, true] {
        let mut issued = issue();
        GRANT.store(issued.id as u32, Ordering::Relaxed);
        check("go", ipc::notify(helper));
        let asked = check("receive", ipc::receive());
        assert!(asked.class == Class::Kernel, "the copy is parked");
        let request = check("request", kernel::memreq_get());
        assert!(request.soft != 0, "and may fail");
        if reissued {
            let old = issued.id;
            assert!(!grants::revoke(issued.id), "it has not failed yet");
            issued = issue();
            assert_eq!(
                grant::split(issued.id).map(|id| id.0),
                grant::split(old).map(|id| id.0)
            );
            assert_ne!(issued.id, old);
        }
        let requestor = Endpoint(request.requestor);
        check("reply", kernel::memreq_reply(requestor, Err(Errno::EFAULT)));
        let failed = check("receive", ipc::receive());
        assert!(failed.class == Class::Notify && failed.source == helper);
        assert_eq!(grants::revoke(issued.id), !reissued);
    }
    row("G12");
    kernel::power_off(0)
}

/// Publishes entry `index` of a table.
fn grant(
    table: &Shared<[GrantEntry; ENTRIES]>,
    index: usize,
    flags: Cpf,
    subject: u32,
    (start, len): (u64, u64),
) -> i32 {
    let sequence = 7;
    let new = GrantEntry {
        flags: (flags | Cpf::USED | Cpf::VALID).bits(),
        sequence,
        grantee: HELPER_IS.load(Ordering::Relaxed),
        subject,
        start,
        len,
        faulted: GRANT_INVALID,
        ..GrantEntry::FREE
    };
    // SAFETY: the index is below ENTRIES; nobody reads it but the kernel.
    unsafe {
        table
            .0
            .get()
            .cast::<GrantEntry>()
            .add(index)
            .write_volatile(new)
    };
    grant::id(index, sequence)
}

fn faulted(table: &Shared<[GrantEntry; ENTRIES]>, index: usize) -> i32 {
    // SAFETY: as `grant`.
    unsafe {
        table
            .0
            .get()
            .cast::<GrantEntry>()
            .add(index)
            .read_volatile()
            .faulted
    }
}

const ALL: Cpf = Cpf::READ.union(Cpf::WRITE);

/// Page `n` of the granter and those after it, directly.
fn direct(flags: Cpf, n: u64, pages: u64) -> i32 {
    grant(&GRANTER, 0, flags | Cpf::DIRECT, 0, (page(n), pages * PAGE))
}

fn set_grants(table: &Shared<[GrantEntry; ENTRIES]>) -> Result<(), Errno> {
    let words = [table.0.get() as u64, ENTRIES as u64];
    // SAFETY: the tables are statics, which are accessed through pointers alone.
    answered(unsafe { kernel::trap(Kcall::SetGrants, 2, &words) })
}

/// A direct grant whose entry lacks a flag.
fn lacking(flag: Cpf) -> i32 {
    let id = direct(ALL, 0, 1);
    // SAFETY: the entry is the table's first; nobody reads it but the kernel.
    unsafe { (*GRANTER.0.get())[0].flags &= !flag.bits() };
    id
}

fn copy(granter: Endpoint, grant: i32, address: u64, len: u64, to_grant: u64) -> Result<(), Errno> {
    let request = SafeCopy {
        granter: granter.0,
        grant,
        offset: 0,
        address,
        len,
        to_grant,
    };
    let copy = In::of(&request);
    // SAFETY: the pages are the rows' own, which nobody has borrowed.
    unsafe { kernel::call_with(calls::SafeCopy { copy }) }
}

/// From the granter's grant to page `n`.
fn from(id: i32, n: u64, pages: u64) -> Result<(), Errno> {
    copy(Endpoint::VM, id, page(n), pages * PAGE, 0)
}

/// From page `n` into the granter's grant.
fn into(id: i32, n: u64, pages: u64) -> Result<(), Errno> {
    copy(Endpoint::VM, id, page(n), pages * PAGE, 1)
}

fn requests() -> u64 {
    REQUESTS.load(Ordering::Relaxed)
}

fn row(name: &str) {
    let mut line = log::Line::new();
    let _ = write!(line, "row {name} ok");
    kernel::log(line.text());
    reset();
}

/// The helper: checks row after row and ends the machine.
pub extern "C" fn helper() -> ! {
    check("wait", ipc::receive());
    if parks() {
        loop {
            let id = GRANT.load(Ordering::Relaxed) as i32;
            assert_eq!(from(id, 4, 1), Err(Errno::EFAULT));
            check("failed", ipc::notify(Endpoint::VM));
            check("wait", ipc::receive());
        }
    }
    let me = Endpoint(HELPER_IS.load(Ordering::Relaxed));
    check("grants", set_grants(&HELPER));
    reset();
    valid(me);
    invalid(me);
    absent(me);
    others();
    ungranted::ungranted(me);
    together(Endpoint(SECOND_IS.load(Ordering::Relaxed)));
    kernel::power_off(0)
}

/// What the second helper is told, in all words.
const TOLD: Message = Message {
    kind: 0x1234,
    words: [11, 12, 13, 14, 15, 16, 17],
};

/// The second helper: for K3 it receives without a stack, for K5 it copies when told, and then
/// it sends back what comes.
pub extern "C" fn second() -> ! {
    let local = 0u8;
    SECOND_STACK.store(&raw const local as u64, Ordering::Relaxed);
    let helper = || Endpoint(HELPER_IS.load(Ordering::Relaxed));
    let received = check("receive", ipc::receive());
    assert!(received.class == Class::Call && received.message == TOLD);
    check("answer", ipc::reply_raw(received.source, received.message));
    check("wait", ipc::receive());
    assert_eq!(clear(1), Ok(()));
    check("done", ipc::notify(helper()));
    loop {
        let received = check("wait", ipc::receive());
        check("back", ipc::post_raw(received.source, received.message));
    }
}

/// Has the kernel fill a page.
fn memset(who: Endpoint, address: u64, pattern: u8, flags: u64) -> Result<(), Errno> {
    let call = calls::Memset {
        who,
        address,
        len: PAGE,
        pattern,
        flags,
    };
    // SAFETY: the pages are the rows' own, which nobody has borrowed.
    unsafe { kernel::call_with(call) }
}

/// Fills page `n` with zeroes, by the kernel.
fn clear(n: u64) -> Result<(), Errno> {
    memset(Endpoint::SELF, page(n), 0, 0)
}

/// The rows that take a third process.
fn together(second: Endpoint) {
    // Messages travel in registers: one is delivered to a process none of whose memory that
    // it could be written to is there. Only its own next instruction needs the stack.
    let stack = SECOND_STACK.load(Ordering::Relaxed);
    assert!(stack != 0, "the second helper waits");
    let first = abi::page_down(stack) - PAGE;
    for at in [first, first + PAGE] {
        let at = entry(at);
        // SAFETY: see `change`; the process does not run.
        unsafe { at.write_volatile(at.read_volatile() & !PRESENT) };
    }
    check("flush", kernel::call(calls::FlushSelf {}));
    assert_eq!(ipc::call_raw(second, TOLD), Ok(TOLD));
    assert_eq!(requests(), 0);
    assert_eq!(FAULTS.load(Ordering::Relaxed), 1);
    row("K3");

    // The pager runs when both are parked: its one notification is for both.
    check("priority", kernel::proc_priority(Endpoint::VM, 5));
    change(0, PRESENT, 0);
    change(1, PRESENT, 0);
    check("go", ipc::notify(second));
    assert_eq!(clear(0), Ok(()));
    check("wait", ipc::receive());
    assert_eq!((requests(), NOTIFIED.load(Ordering::Relaxed)), (2, 1));
    assert!(holds(0, 0) && holds(1, 0));
    row("K5");
    along::along(second);
}

fn indirect(index: usize, granter: Endpoint, id: i32) -> i32 {
    grant(
        &HELPER,
        index,
        Cpf::INDIRECT,
        granter.0,
        (id as u32 as u64, 0),
    )
}

fn valid(me: Endpoint) {
    let id = direct(ALL | Cpf::TRY, 0, 1);
    assert_eq!(from(id, 4, 1), Ok(()));
    assert!(holds(4, 1));
    assert_eq!(faulted(&GRANTER, 0), GRANT_INVALID);
    assert_eq!(
        copy(me, indirect(0, Endpoint::VM, id), page(5), PAGE, 0),
        Ok(())
    );
    assert!(holds(5, 1));
    let magic = grant(&GRANTER, 1, ALL | Cpf::MAGIC, me.0, (page(1), PAGE));
    assert_eq!(into(magic, 0, 1), Ok(()));
    assert!(holds(1, 1));
    row("G1");
}

fn invalid(me: Endpoint) {
    let denied = Err(Errno::EPERM);
    let id = direct(ALL, 0, 1);
    assert_eq!(from(grant::id(0, 6), 4, 1), denied);
    assert_eq!(from(grant::id(ENTRIES, 0), 4, 1), denied);
    assert_eq!(from(grant::id(3, 7), 4, 1), denied);
    for flag in [Cpf::USED, Cpf::VALID] {
        assert_eq!(from(lacking(flag), 4, 1), denied);
    }
    row("G2");

    assert_eq!(from(direct(Cpf::WRITE, 0, 1), 4, 1), denied);
    assert_eq!(into(direct(Cpf::READ, 0, 1), 4, 1), denied);
    assert_eq!(from(direct(ALL, 0, 1), 4, 2), denied);
    let magic = grant(
        &HELPER,
        1,
        ALL | Cpf::MAGIC,
        Endpoint::VM.0,
        (page(0), PAGE),
    );
    assert_eq!(copy(me, magic, page(4), PAGE, 0), denied);
    HELPER_IS.store(Endpoint::PM.0, Ordering::Relaxed);
    let others = direct(ALL, 0, 1);
    HELPER_IS.store(me.0, Ordering::Relaxed);
    assert_eq!(from(others, 4, 1), denied);
    row("G3");

    let mut chain = direct(ALL, 0, 1);
    let mut granter = Endpoint::VM;
    for hop in 0..6 {
        chain = indirect(hop, granter, chain);
        granter = me;
        let expected = if hop < 5 { Ok(()) } else { Err(Errno::ELOOP) };
        assert_eq!(
            copy(me, chain, page(4), PAGE, 0),
            expected,
            "{hop} hops more"
        );
    }
    let own = indirect(7, me, grant::id(7, 7));
    assert_eq!(copy(me, own, page(4), PAGE, 0), Err(Errno::ELOOP));
    row("G4");

    let dead = Endpoint::new(200, 3);
    assert_eq!(copy(dead, id, page(4), PAGE, 0), Err(Errno::EINVAL));
    assert_eq!(from(-5, 4, 1), Err(Errno::EINVAL));
    let magic = grant(&GRANTER, 1, ALL | Cpf::MAGIC, dead.0, (page(1), PAGE));
    assert_eq!(from(magic, 4, 1), Err(Errno::ESRCH));
    assert_eq!(from(id, 4, 0), Err(Errno::EDOM));
    row("G5");
}

fn absent(me: Endpoint) {
    let fault = Err(Errno::EFAULT);
    let soft = |n, pages| direct(ALL | Cpf::TRY, n, pages);
    let marked = |id| assert_eq!(faulted(&GRANTER, 0), id);

    change(0, PRESENT | WRITABLE, 0);
    let id = soft(0, 1);
    assert_eq!(from(id, 4, 1), fault);
    marked(id);
    assert_eq!(requests(), 0);
    assert_eq!(from(direct(Cpf::READ, 0, 1), 4, 1), Ok(()));
    assert_eq!((requests(), WRITE.load(Ordering::Relaxed)), (1, 0));
    assert!(holds(4, 1));
    row("G6");

    for cleared in [PRESENT | WRITABLE, WRITABLE] {
        change(0, cleared, 0);
        let id = soft(0, 1);
        assert_eq!(into(id, 4, 1), fault);
        marked(id);
        assert_eq!(into(direct(Cpf::WRITE, 0, 1), 4, 1), Ok(()));
        assert_eq!(WRITE.load(Ordering::Relaxed), 1);
        assert!(holds(0, 5));
    }
    assert_eq!(requests(), 2);
    row("G7");

    change(0, PRESENT, 0);
    REFUSED.store(page(0), Ordering::Relaxed);
    let id = soft(0, 1);
    assert_eq!(into(id, 4, 1), fault);
    marked(id);
    let id = direct(ALL, 0, 1);
    assert_eq!(into(id, 4, 1), fault);
    marked(GRANT_INVALID);
    row("G8");

    change(1, PRESENT, 0);
    let id = soft(0, 2);
    assert_eq!(from(id, 4, 2), fault);
    assert!(holds(4, 1) && holds(5, 6));
    assert_eq!(from(direct(ALL, 0, 2), 4, 2), Ok(()));
    assert!(holds(4, 1) && holds(5, 2));
    row("G9");

    change(0, PRESENT, 0);
    change(4, PRESENT, 0);
    assert_eq!(from(soft(0, 1), 4, 1), fault);
    assert_eq!(requests(), 0);
    assert_eq!(from(direct(ALL, 0, 1), 4, 1), Ok(()));
    assert_eq!(requests(), 2);
    assert!(holds(4, 1));
    row("G10");

    change(0, PRESENT, 0);
    let chained = indirect(2, Endpoint::VM, soft(0, 1));
    assert_eq!(copy(me, chained, page(4), PAGE, 0), fault);
    // The mark is the one's who can have the page brought, not the one's who passed the grant on.
    marked(grant::id(0, 7));
    assert_eq!(faulted(&HELPER, 2), GRANT_INVALID);
    row("G11");
}

fn others() {
    let fault = Err(Errno::EFAULT);
    let vector = |flags| {
        change(1, PRESENT, 0);
        let id = direct(flags, 0, 3);
        let copies = [0, 1, 2].map(|n| SafeCopy {
            granter: Endpoint::VM.0,
            grant: id,
            offset: n * PAGE,
            address: page(4 + n),
            len: PAGE,
            to_grant: 0,
        });
        // SAFETY: the pages are the rows' own, which nobody has borrowed.
        unsafe { rt::copy::safecopy_vector(&copies) }
    };
    assert_eq!(vector(ALL | Cpf::TRY), fault);
    assert!(holds(4, 1) && holds(5, 6) && holds(6, 7));
    assert_eq!(vector(ALL), Ok(()));
    assert!(holds(4, 1) && holds(5, 2) && holds(6, 3));
    row("G13");

    let memset = |id: i32| rt::copy::safe_memset(Endpoint::VM, GrantTo::new(id), 0, PAGE, 9);
    change(0, PRESENT, 0);
    let id = direct(ALL | Cpf::TRY, 0, 1);
    assert_eq!(memset(id), fault);
    assert_eq!(faulted(&GRANTER, 0), id);
    assert_eq!(memset(direct(ALL, 0, 1)), Ok(()));
    assert!(holds(0, 9));
    row("G14");
}
