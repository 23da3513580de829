//! A guest in user mode that changes its own page tables, of two address spaces and at every
//! level, looks at everything they map, and is put back in between. What it sees must be what
//! the tables in memory say.

mod tiny;

use std::arch::global_asm;
use std::sync::Arc;
use std::time::Duration;

use abi::page_table::{self, ACCESSED, ADDRESS, DIRTY, PRESENT, USER, WRITE};
use abi::trace::Control;
use absentia_vmm::boot::LAB_BASE;
use absentia_vmm::images::Archive;
use absentia_vmm::lab::{Machine, Setup, Snapshot, Stop};
use absentia_vmm::log::{KEPT, Log};
use absentia_vmm::snapshot::image::Image;
use tiny::{ORIGIN, kernel};
use vm_memory::{Bytes, GuestAddress};

// From the PVH entry to user mode, and there for ever: carry out the edits of the mailbox, load
// CR3 or invalidate every address when told, read and write at every address, ring.
global_asm!(
    r#"
    .pushsection .rodata.translations, "a"
    .globl tables_guest
    .globl tables_guest_end
    .code32
tables_guest:
    lgdt 0x113000
    lidt 0x113010
    movl $0xa0, %eax
    movl %eax, %cr4
    movl ${top}, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl $0x80010001, %eax
    movl %eax, %cr0
    .byte 0xea
    .long 100f - tables_guest + 0x100000
    .word 0x08
    .code64
100:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $0x38, %eax
    ltr %ax
    movl $0x118000, %esp
    pushq $0x2b
    pushq $0x11c000
    pushq $0x2
    pushq $0x33
    leaq 200f(%rip), %rax
    pushq %rax
    iretq

200:
    movq {mailbox}, %rcx
    movl ${mailbox} + 0x100, %esi
201:
    testq %rcx, %rcx
    jz 202f
    movq (%rsi), %rdi
    movq 8(%rsi), %rax
    movq %rax, (%rdi)
    addq $16, %rsi
    decq %rcx
    jmp 201b
202:
    cmpq $1, {mailbox} + 8
    jne 203f
    int3
203:
    cmpq $2, {mailbox} + 8
    jne 206f
    movl ${addresses}, %esi
    movq {mailbox} + 0x18, %rcx
205:
    movq (%rsi), %rdx
    int $4
    addq $8, %rsi
    decq %rcx
    jnz 205b
206:
    movl ${addresses}, %esi
    movl ${results}, %edi
    movq {mailbox} + 0x18, %rcx
207:
    movq (%rsi), %rdx
    xorl %eax, %eax
    movq $-1, %r8
    leaq 208f(%rip), %r9
    movq (%rdx), %rax
208:
    movq %rax, (%rdi)
    movq %r8, 8(%rdi)
    movq $-1, %r8
    leaq 209f(%rip), %r9
    movq %rax, (%rdx)
209:
    movq %r8, 16(%rdi)
    addq $8, %rsi
    addq $32, %rdi
    decq %rcx
    jnz 207b
    movl ${lab} + {point}, %ebx
    movq %rcx, (%rbx)
    jmp 200b

    .globl tables_load
tables_load:
    movq {mailbox} + 0x10, %rax
    movq %rax, %cr3
    iretq
    .globl tables_invalidate
tables_invalidate:
    invlpg (%rdx)
    iretq
    .globl tables_fault
tables_fault:
    popq %r8
    movq %r9, (%rsp)
    iretq
    .globl tables_bad
tables_bad:
    movl $0xbad, %eax
    outl %eax, $0xf4
tables_guest_end:
    .popsection
    "#,
    top = const TOP[0],
    mailbox = const MAILBOX,
    addresses = const ADDRESSES,
    results = const RESULTS,
    lab = const LAB_BASE,
    point = const abi::lab::POINT,
    options(att_syntax)
);

unsafe extern "C" {
    static tables_guest: u8;
    static tables_guest_end: u8;
    static tables_load: u8;
    static tables_invalidate: u8;
    static tables_fault: u8;
    static tables_bad: u8;
}

/// Top-level tables of the two spaces, and what is below them.
const TOP: [u64; 2] = [0x40_0000, 0x40_1000];
const SECOND: [u64; 2] = [0x40_2000, 0x40_3000];
const LOW: u64 = 0x40_4000;
const LOW_PAGES: u64 = 0x40_5000;
const DEVICES: u64 = 0x40_6000;
const DEVICE_PAGES: u64 = 0x40_7000;
/// Tables of the third and fourth level, and frames, that change places.
const DIRECTORIES: [u64; 3] = [0x41_0000, 0x41_1000, 0x41_2000];
const TABLES: [u64; 4] = [0x42_0000, 0x42_1000, 0x42_2000, 0x42_3000];
const FRAMES: u64 = 0x43_0000;
const LARGE: [u64; 2] = [0x60_0000, 0x80_0000];
const MAILBOX: u64 = 0x12_0000;
const ADDRESSES: u64 = 0x12_1000;
const RESULTS: u64 = 0x12_2000;
/// In each frame: where the guest looks. As an entry of a table it is absent.
const TAG: u64 = 0xff8;

const ALL: u64 = PRESENT | WRITE | USER | ACCESSED | DIRTY;
const LONG: Duration = Duration::from_secs(60);

/// Where code of the guest is.
fn place(label: &'static u8) -> u64 {
    (label as *const u8 as u64) - (&raw const tables_guest as u64) + u64::from(ORIGIN)
}

fn write(machine: &Machine, at: u64, words: &[u64]) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let ram = &machine.ram().map;
    ram.write_slice(&bytes, GuestAddress(at)).unwrap();
}

fn read(machine: &Machine, at: u64) -> u64 {
    machine.ram().map.read_obj(GuestAddress(at)).unwrap()
}

fn addresses() -> Vec<u64> {
    let mut list = Vec::new();
    for second in [4u64, 5] {
        for third in 0..4u64 {
            for fourth in 0..8u64 {
                list.push(second << 30 | third << 21 | fourth << 12 | TAG);
            }
        }
    }
    list
}

fn boot() -> Machine {
    // SAFETY: both labels are of one section, in this order.
    let code = unsafe {
        let len = (&raw const tables_guest_end).offset_from(&raw const tables_guest);
        std::slice::from_raw_parts(&raw const tables_guest, len as usize)
    };
    let setup = Setup {
        kernel: kernel(code).into(),
        archive: Archive::default(),
        cmdline: String::new(),
        memory: 32 << 20,
        disk: None,
        gate: None,
        control: Control::OFF,
        log: Arc::new(Log::new(false, KEPT)),
    };
    let machine = Machine::boot(&setup).expect("a machine");
    let put = |at, words: &[u64]| write(&machine, at, words);
    let (code, data) = (0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff);
    let dpl3 = 3 << 45;
    let tss = 0x0000_8900_0000_0067 | 0x11_2000 << 16;
    put(
        0x11_0000,
        &[0, code, data, 0, 0, data | dpl3, code | dpl3, tss, 0],
    );
    // SAFETY: symbols of the code above.
    let gates = unsafe {
        [
            (3, place(&tables_load), 0xee00u64),
            (4, place(&tables_invalidate), 0xee00),
            (14, place(&tables_fault), 0x8e00),
            (6, place(&tables_bad), 0x8e00),
            (8, place(&tables_bad), 0x8e00),
            (13, place(&tables_bad), 0x8e00),
        ]
    };
    for (vector, at, kind) in gates {
        let low = at & 0xffff | 8 << 16 | kind << 32 | (at >> 16 & 0xffff) << 48;
        put(0x11_1000 + vector * 16, &[low, at >> 32]);
    }
    // The TSS's rsp0 is not aligned.
    put(0x11_2000, &[0x11_8000 << 32, 0]);
    put(0x11_3000, &[0x4f | 0x11_0000 << 16]);
    put(0x11_3010, &[0xff | 0x11_1000 << 16]);
    for (top, second) in TOP.into_iter().zip(SECOND) {
        put(top, &[second | ALL]);
        put(second, &[LOW | ALL, 0, 0, DEVICES | ALL]);
    }
    put(LOW, &[LOW_PAGES | ALL, 0, TOP[0] | ALL | page_table::LARGE]);
    let identity: Vec<u64> = (0..512).map(|page| page << 12 | ALL).collect();
    put(LOW_PAGES, &identity);
    put(DEVICES + 128 * 8, &[DEVICE_PAGES | ALL]);
    put(DEVICE_PAGES + 16 * 8, &[LAB_BASE | ALL]);
    let frames = (FRAMES..FRAMES + (12 << 12)).step_by(4096);
    let large = LARGE
        .into_iter()
        .flat_map(|at| (at..at + (8 << 12)).step_by(4096));
    for frame in frames.chain(large).chain(DIRECTORIES).chain(TABLES) {
        put(frame + TAG, &[frame << 4]);
    }
    let addresses = addresses();
    put(MAILBOX + 24, &[addresses.len() as u64]);
    put(ADDRESSES, &addresses);
    machine
}

/// How translations are flushed after edits.
#[derive(Clone, Copy, Debug)]
enum Flush {
    Nothing,
    Load(u64),
    Invalidate,
}

/// What the guest is to see at an address: what is there and the error code of the load, the
/// error code of the store.
fn expected(machine: &Machine, top: u64, address: u64) -> [u64; 3] {
    const NONE: u64 = u64::MAX;
    let (mut table, mut rights) = (top, USER | WRITE);
    for shift in [39, 30, 21, 12] {
        let entry = read(machine, table + (address >> shift & 511) * 8);
        if entry & PRESENT == 0 {
            return [0, 4, 6];
        }
        rights &= entry;
        let large = shift == 21 && entry & page_table::LARGE != 0;
        if shift == 12 || large {
            if rights & USER == 0 {
                return [0, 5, 7];
            }
            let within = (1u64 << shift) - 1;
            let value = read(machine, entry & ADDRESS & !within | address & within);
            let store = if rights & WRITE != 0 { NONE } else { 7 };
            return [value, NONE, store];
        }
        table = entry & ADDRESS;
    }
    unreachable!("the last level returns")
}

/// Lets the guest change its tables and look at what they map.
fn look(machine: &mut Machine, top: u64, edits: &[(u64, u64)], flush: Flush) {
    let (kind, cr3) = match flush {
        Flush::Nothing => (0, 0),
        Flush::Load(cr3) => (1, cr3),
        Flush::Invalidate => (2, 0),
    };
    write(machine, MAILBOX, &[edits.len() as u64, kind, cr3]);
    let words: Vec<u64> = edits.iter().flat_map(|edit| [edit.0, edit.1]).collect();
    write(machine, MAILBOX + 0x100, &words);
    assert_eq!(machine.run(LONG).unwrap(), Stop::Point(0));
    for (index, address) in addresses().into_iter().enumerate() {
        let seen = [0, 8, 16].map(|word| read(machine, RESULTS + index as u64 * 32 + word));
        let expected = expected(machine, top, address);
        assert!(
            seen == expected,
            "{address:#x} in {top:#x} after {edits:x?}, {flush:?}: seen {seen:x?}, the tables \
             say {expected:x?}"
        );
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    fn rights(&mut self) -> u64 {
        let mut rights = self.below(0x80) & ALL;
        // Most are of use.
        if self.below(4) != 0 {
            rights |= PRESENT | USER;
        }
        rights | self.below(2) << 63
    }

    /// An entry somewhere below the second level, and what becomes of it.
    fn edit(&mut self) -> (u64, u64) {
        let rights = self.rights();
        let frame = FRAMES + (self.below(12) << 12);
        match self.below(8) {
            0 => {
                let at = self.pick(&SECOND) + (4 + self.below(2)) * 8;
                (at, self.pick(&DIRECTORIES) | rights)
            }
            1 | 2 => {
                let at = self.pick(&DIRECTORIES) + self.below(4) * 8;
                let large = self.below(4) == 0;
                let to = self.pick(if large { &LARGE } else { &TABLES });
                (at, to | rights | if large { page_table::LARGE } else { 0 })
            }
            3 => {
                // A table as a page.
                let at = self.pick(&TABLES) + self.below(8) * 8;
                let to = [self.pick(&TABLES), self.pick(&DIRECTORIES)];
                (at, self.pick(&to) | rights)
            }
            4 => (self.pick(&TABLES) + self.below(8) * 8, 0),
            _ => (self.pick(&TABLES) + self.below(8) * 8, frame | rights),
        }
    }
}

/// A snapshot, the space that the guest is in, and memory after the first look from there.
struct Moment {
    snapshot: Snapshot,
    top: u64,
    after: Option<Image>,
}

fn must_equal(a: &Image, b: &Image, what: &str) {
    for number in 0..a.pages() {
        assert!(a.page(number) == b.page(number), "{what}: page {number:#x}");
    }
}

/// Returns how many restores had the vCPU touch entries, and how many forgot everything.
fn walk(seed: u64, rounds: usize) -> (usize, usize) {
    let mut random = Random(seed);
    let mut machine = boot();
    let mut top = TOP[0];
    let edits: Vec<_> = (0..60).map(|_| random.edit()).collect();
    look(&mut machine, top, &edits, Flush::Load(top));
    let mut moments: Vec<Moment> = Vec::new();
    let (mut touched, mut everything) = (0, 0);
    for round in 0..rounds {
        match random.below(10) {
            0..4 => {
                let count = 1 + random.below(6);
                let edits: Vec<_> = (0..count).map(|_| random.edit()).collect();
                let flush = if random.below(3) == 0 {
                    Flush::Invalidate
                } else {
                    top = random.pick(&TOP);
                    Flush::Load(top)
                };
                look(&mut machine, top, &edits, flush);
            }
            4 => {
                let snapshot = machine.snapshot().unwrap();
                if moments.len() == 5 {
                    moments.swap_remove(random.below(5) as usize);
                }
                moments.push(Moment {
                    snapshot,
                    top,
                    after: None,
                });
            }
            _ if moments.is_empty() => {}
            choice => {
                if choice == 5 {
                    // As a device that writes anywhere.
                    let (at, entry) = random.edit();
                    write(&machine, at, &[entry]);
                }
                let index = random.below(moments.len() as u64) as usize;
                let moment = &mut moments[index];
                let restored = machine.restore(&moment.snapshot).unwrap();
                match restored.touched {
                    Some(_) => touched += 1,
                    None => everything += 1,
                }
                top = moment.top;
                let what = format!("round {round} of seed {seed:#x}");
                if random.below(4) == 0 {
                    let now = machine.snapshot().unwrap();
                    must_equal(now.memory(), moment.snapshot.memory(), &what);
                    assert_eq!(now.vcpu().regs(), moment.snapshot.vcpu().regs());
                }
                look(&mut machine, top, &[], Flush::Nothing);
                let now = machine.snapshot().unwrap();
                match &moment.after {
                    // The same to the last bit: which entries were accessed, too.
                    Some(after) => must_equal(now.memory(), after, &what),
                    None => moment.after = Some(now.memory().clone()),
                }
            }
        }
    }
    (touched, everything)
}

#[test]
fn no_translation_outlives_what_it_came_from() {
    let (mut touched, mut everything) = (0, 0);
    for seed in [
        0x9e37_79b9_7f4a_7c15,
        0xd1b5_4a32_d192_ed03,
        0x2545_f491_4f6c_dd1d,
    ] {
        let counts = walk(seed, 400);
        touched += counts.0;
        everything += counts.1;
    }
    eprintln!("{touched} restores by touching entries, {everything} by forgetting everything");
    assert!(touched > 300);
}
