//! The guest boots as Firecracker loads it: what it puts where and how it enters the kernel, by its
//! sources (version 1.17's `arch/x86_64`: `layout.rs`, `configure_pvh`, `regs.rs`). The devices are
//! ours, at the addresses of Firecracker's first two.

mod tiny;

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use abi::kernel::HOLE;
use absentia_vmm::board::{Board, Drive, Interrupts, Plan, Step};
use absentia_vmm::boot::{LAB_BASE, Window, Windows};
use absentia_vmm::control::Stop;
use absentia_vmm::devices::lab::Request;
use absentia_vmm::hostlink::input::Input;
use absentia_vmm::hostlink::output::Sink;
use absentia_vmm::images::Archive;
use absentia_vmm::kvm::Vm;
use absentia_vmm::kvm::gate::Cpl0;
use absentia_vmm::log::{KEPT, Log};
use absentia_vmm::memory::GuestRam;
use absentia_vmm::program::{Images, Program};
use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::{Kvm, VcpuFd};
use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{Bytes, GuestAddress};

/// Bytes of RAM: below the hole for devices, which Firecracker has where we have it, and on both sides.
const MEMORIES: [u64; 2] = [128 << 20, HOLE.start + (64 << 20)];
const HIGH_MEMORY: u64 = 1 << 20;
const SYSTEM: std::ops::Range<u64> = 0x9_fc00..0xe_0000;
const CONFIGURATION: std::ops::Range<u64> = 0xeec0_0000..0xfec0_0000;
const TABLES: u64 = 0x500;
const INTERRUPTS: u64 = 0x520;
const START_INFO: u64 = 0x6000;
const MODULES: u64 = 0x6040;
const MEMORY_MAP: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x2_0000;
const DEVICES: Windows = Windows {
    disk: Window {
        base: 0xc000_1000,
        len: 4096,
        gsi: 5,
    },
    console: Window {
        base: 0xc000_2000,
        len: 4096,
        gsi: 6,
    },
};

/// Little-endian words, one after the other.
fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Kernel, module and what PVH says about them; the kernel's entry.
fn load(ram: &GuestRam, kernel: &[u8], archive: &Archive, cmdline: &str) -> u64 {
    let put = |at: u64, bytes: &[u8]| {
        ram.map
            .write_slice(bytes, GuestAddress(at))
            .expect("guest RAM");
    };
    // Low memory is the loader's: nothing of ours stays there.
    put(0, &vec![0; HIGH_MEMORY as usize + 4096]);
    let high = Some(GuestAddress(HIGH_MEMORY));
    let loaded = Elf::load(&ram.map, None, &mut Cursor::new(kernel), high).expect("the kernel");
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        panic!("{:?}", loaded.pvh_boot_cap);
    };

    let low = ram.size.min(HOLE.start);
    let module = (low - archive.len()) & !4095;
    archive
        .write(|offset, bytes| {
            put(module + offset, bytes);
            Ok(())
        })
        .expect("the archive");
    put(COMMAND_LINE, cmdline.as_bytes());

    let ranges = [
        (0, SYSTEM.start, 1),
        (SYSTEM.start, SYSTEM.end - SYSTEM.start, 2),
        (
            CONFIGURATION.start,
            CONFIGURATION.end - CONFIGURATION.start,
            2,
        ),
        (HIGH_MEMORY, low - HIGH_MEMORY, 1),
        (HOLE.end, ram.size - low, 1),
    ];
    let count = ranges.iter().filter(|range| range.1 > 0).count();
    for (i, (from, len, kind)) in (0..).zip(ranges) {
        put(MEMORY_MAP + 24 * i, &words(&[from, len, kind]));
    }
    put(MODULES, &words(&[module, archive.len(), 0, 0]));
    let (magic, version, modules) = (0x336e_c578, 1 << 32, 1 << 32);
    let start = words(&[
        magic | version,
        modules,
        MODULES,
        COMMAND_LINE,
        0,
        MEMORY_MAP,
        count as u64,
    ]);
    put(START_INFO, &start);
    entry.0
}

/// Segments and registers as Firecracker leaves them.
fn enter(vcpu: &VcpuFd, ram: &GuestRam, rip: u64) {
    let table = words(&[
        0,
        0x00cf_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x0000_8b00_0000_0067,
    ]);
    let put = |at, bytes: &[u8]| {
        ram.map
            .write_slice(bytes, GuestAddress(at))
            .expect("tables")
    };
    put(TABLES, &table);
    put(INTERRUPTS, &words(&[0]));
    let segment = |index: u16, kind: u8, limit| kvm_segment {
        base: 0,
        limit,
        selector: index * 8,
        type_: kind,
        present: 1,
        db: u8::from(index < 3),
        s: u8::from(index < 3),
        g: u8::from(index < 3),
        ..Default::default()
    };
    let mut sregs = vcpu.get_sregs().expect("KVM_GET_SREGS");
    (sregs.gdt.base, sregs.gdt.limit) = (TABLES, 31);
    (sregs.idt.base, sregs.idt.limit) = (INTERRUPTS, 7);
    sregs.cs = segment(1, 0xb, u32::MAX);
    let data = segment(2, 0x3, u32::MAX);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(3, 0xb, 0x67);
    sregs.cr0 = 0x11;
    (sregs.cr3, sregs.cr4, sregs.efer) = (0, 0, 0);
    vcpu.set_sregs(&sregs).expect("KVM_SET_SREGS");
    let regs = kvm_regs {
        rip,
        rbx: START_INFO,
        rflags: 2,
        ..Default::default()
    };
    vcpu.set_regs(&regs).expect("KVM_SET_REGS");
}

#[test]
fn the_guest_boots_as_firecracker_loads_it() {
    MEMORIES.into_iter().for_each(boots);
}

fn boots(memory: u64) {
    let begun = Instant::now();
    let kvm = Kvm::new().expect("this test needs /dev/kvm, readable and writable");
    let ram = GuestRam::new(memory).expect("guest RAM");
    let vm = Vm::new(&kvm, &ram).expect("a machine");
    let images = Program::new::<&str>([]).images().expect("the images");
    let Images {
        kernel,
        archive,
        cmdline,
        disk,
    } = images;
    let (stdout, said) = Sink::capture();
    let log = Arc::new(Log::new(false, KEPT));
    let plan = Plan {
        // What is loaded with the board makes way below.
        kernel: &tiny::kernel(&tiny::POWER_OFF),
        archive: &Archive::default(),
        cmdline: "",
        gate: Cpl0::of_host(&kvm).expect("the host").gate(),
        disk: Some(Drive {
            backing: disk.file.into(),
            read_only: false,
        }),
        windows: DEVICES,
        interrupts: Interrupts::Events,
        stdout,
        stderr: Sink::capture().0,
        input: Input::new().expect("input"),
        stop: Stop::new().expect("eventfd"),
        log: log.clone(),
    };
    let mut board = Board::new(&vm, &ram, plan).expect("the board");
    // Its default words, ours, and its devices in their order. The page at LAB_BASE is how this
    // board hears of the end.
    let cmdline = format!(
        "reboot=k panic=1 nomodule {cmdline} absentia.lab={LAB_BASE:#x} root=/dev/vda rw \
         virtio_mmio.device=4K@0xc0001000:5 virtio_mmio.device=4K@0xc0002000:6"
    );
    let entry = load(&ram, &kernel, &archive, &cmdline);
    enter(board.vcpu.fd(), &ram, entry);

    let done = Arc::new(AtomicBool::new(false));
    let (lines, ended) = (log.clone(), done.clone());
    std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            if begun.elapsed() > Duration::from_secs(60) {
                eprintln!("the guest does not end: {:#?}", lines.kept());
                std::process::exit(1);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let mut started = false;
    loop {
        match board.step() {
            Step::Request(Request::PowerOff(status)) => {
                assert_eq!(status, 0, "{:#?}", log.kept());
                break;
            }
            Step::Request(Request::ProgramStarted) => started = true,
            Step::Request(_) | Step::Done => {}
            Step::Dead(death) => panic!("{death:?}: {:#?}", log.kept()),
        }
    }
    done.store(true, Ordering::Relaxed);
    assert!(started, "{:#?}", log.kept());
    let said = said.lock().unwrap_or_else(|e| e.into_inner());
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("This is Absentia"), "{said}");
}
