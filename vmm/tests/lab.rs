//! Machines of the laboratory with guests of a few instructions: doorbells, guests that lie,
//! and RAM that is put back to the byte.

mod tiny;

use std::sync::Arc;
use std::time::Duration;

use abi::lab;
use abi::trace::{CONTROL_MAGIC, Control, Mode};
use absentia_vmm::boot::LAB_BASE;
use absentia_vmm::images::Archive;
use absentia_vmm::lab::{Machine, Setup, Snapshot, Stop, control};
use absentia_vmm::log::{KEPT, Log};
use tiny::{POWER_OFF, kernel};

const LONG: Duration = Duration::from_secs(60);
/// Where a guest here keeps its control.
const AT: u32 = 0x20_0000;

/// A machine; without KVM this fails.
fn machine(code: &[u8], control: Control) -> Machine {
    let setup = Setup {
        kernel: kernel(code).into(),
        archive: Archive::default(),
        cmdline: String::new(),
        memory: 32 << 20,
        disk: None,
        gate: None,
        control,
        log: Arc::new(Log::new(false, KEPT)),
    };
    Machine::boot(&setup).expect("a machine")
}

/// mov $value, %ebx:%ecx; xor %eax, %eax; xor %edx, %edx; cmpxchg8b register: the one store of
/// eight bytes there is without SSE. The registers read as zeros.
fn ring(register: u64, value: u64) -> Vec<u8> {
    let [low, high] = [value as u32, (value >> 32) as u32].map(u32::to_le_bytes);
    let at = ((LAB_BASE + register) as u32).to_le_bytes();
    let store = [0x31, 0xc0, 0x31, 0xd2, 0x0f, 0xc7, 0x0d];
    [&[0xbb][..], &low, &[0xb9], &high, &store, &at].concat()
}

/// movl $value, at
fn store(at: u32, value: u32) -> Vec<u8> {
    [&[0xc7, 0x05][..], &at.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// mov at, %eax; out %eax, $0xf4
fn power_off_with(at: u32) -> Vec<u8> {
    [&[0xa1][..], &at.to_le_bytes(), &[0xe7, 0xf4]].concat()
}

fn control_with_magic() -> Vec<u8> {
    let magic = CONTROL_MAGIC;
    [store(AT, magic as u32), store(AT + 4, (magic >> 32) as u32)].concat()
}

#[test]
fn doorbells_stop_the_machine_in_order() {
    let seed_at = AT + std::mem::offset_of!(Control, seed) as u32;
    let withdrawn_at = AT + std::mem::offset_of!(Control, withdrawn) as u32;
    let code = [
        control_with_magic(),
        ring(lab::CONTROL, AT.into()),
        ring(lab::PROGRAM_STARTED, 0),
        ring(lab::POINT, 7),
        ring(lab::POINT, 1 << 40),
        ring(lab::TRACE_FULL, 0),
        ring(lab::RESTORE, 0x3000),
        ring(lab::STUCK, 0),
        store(0x3000, 1),
        store(withdrawn_at + 16, 0),
        power_off_with(seed_at),
    ]
    .concat();
    let asked = Control {
        withdrawn_count: 3,
        withdrawn: [0x5000, 0x3000, 0x9000, 0, 0, 0, 0, 0],
        ..control::traced(Mode::Random, 99)
    };
    let mut machine = machine(&code, asked);
    assert!(machine.control().is_none());
    let mut stops = Vec::new();
    for _ in 0..4 {
        stops.push(machine.run(LONG).unwrap());
        let control = machine.control().unwrap();
        if stops.len() == 1 {
            assert_eq!(
                (control.on, control.seed, control.withdrawn_count),
                (1, 99, 3)
            );
            machine.ram().withdraw(0x3000).unwrap();
        }
    }
    let points = [
        Stop::Started,
        Stop::Point(7),
        Stop::Point(1 << 40),
        Stop::Stuck,
    ];
    assert_eq!(stops, points);
    // What VM wanted back is there, and no longer among what is not.
    let control = machine.control().unwrap();
    assert_eq!(control.withdrawn_count, 2);
    assert_eq!(control.withdrawn[..3], [0x5000, 0x9000, 0]);
    assert!(machine.ram().restrictions().is_empty());
    let mut other = control;
    other.seed = 1234;
    machine.set_control(&other).unwrap();
    let end = Stop::PowerOff {
        status: 1234,
        program: None,
    };
    assert_eq!(machine.run(LONG).unwrap(), end);
    assert_eq!(machine.run(LONG).unwrap(), end);
}

#[test]
fn a_guest_that_lies_about_its_control_has_none() {
    for at in [0, 0x3001, (32 << 20) - 8, 32 << 20, u64::MAX, 1 << 63] {
        let code = [
            ring(lab::CONTROL, at),
            ring(lab::TRACE_FULL, at),
            ring(lab::RESTORE, at),
            ring(lab::RESTORE, u64::MAX),
            ring(lab::INSPECTION, at),
            ring(lab::POINT, 3),
            POWER_OFF.to_vec(),
        ]
        .concat();
        let mut machine = machine(&code, control::traced(Mode::First, 0));
        assert_eq!(machine.run(LONG).unwrap(), Stop::Point(3), "{at:#x}");
        assert!(machine.control().is_none());
        assert!(
            machine
                .inspect()
                .is_none_or(|seen| seen.processes.is_empty())
        );
        let snapshot = machine.snapshot().unwrap();
        for _ in 0..2 {
            assert!(matches!(
                machine.run(LONG).unwrap(),
                Stop::PowerOff { status: 9, .. }
            ));
            machine.restore(&snapshot).unwrap();
        }
    }
}

#[test]
fn records_come_once_and_are_rewound() {
    use std::mem::offset_of;
    let word = |offset: usize| AT + offset as u32;
    let ring_at = 0x30_0000u32;
    // The ring's own memory is 0x31_0000 long.
    let add = |count: u32| store(word(offset_of!(Control, records)), count);
    let record = |number: u32| store(ring_at + number % 1024 * 64, 1000 + number);
    let code = [
        control_with_magic(),
        store(word(offset_of!(Control, ring)), ring_at),
        ring(lab::CONTROL, AT.into()),
        record(0),
        record(1),
        add(2),
        ring(lab::POINT, 0),
        record(2),
        add(3),
        ring(lab::TRACE_FULL, 0),
        record(3),
        add(4),
        ring(lab::POINT, 1),
        add(5000),
        ring(lab::STUCK, 0),
        POWER_OFF.to_vec(),
    ]
    .concat();
    let mut machine = machine(&code, control::traced(Mode::First, 0));
    let times = |machine: &Machine| -> Vec<u64> {
        machine.records().iter().map(|record| record.time).collect()
    };
    assert_eq!(machine.run(LONG).unwrap(), Stop::Point(0));
    assert_eq!(times(&machine), [1000, 1001]);
    let first = machine.snapshot().unwrap();
    for _ in 0..3 {
        assert_eq!(machine.run(LONG).unwrap(), Stop::Point(1));
        assert_eq!(times(&machine), [1000, 1001, 1002, 1003]);
        let second = machine.snapshot().unwrap();
        assert_eq!(machine.run(LONG).unwrap(), Stop::Stuck);
        assert_eq!(machine.lost_records(), 5000 - 4 - 1024);
        machine.restore(&second).unwrap();
        assert_eq!(times(&machine).len(), 4);
        assert_eq!(machine.lost_records(), 0);
        machine.restore(&first).unwrap();
        assert_eq!(times(&machine), [1000, 1001]);
    }
}

/// Writes numbers to places that depend on them, and ends with the last one.
fn scribble(rounds: u32) -> Vec<u8> {
    let mut code = vec![0xbe, 1, 0, 0, 0, 0xb9];
    code.extend(rounds.to_le_bytes());
    // again: imul $0x41c64e6d, %esi; add $12345, %esi; mov %esi, %eax; shr $5, %eax;
    // and $0x7ffffc, %eax; add $0x800000, %eax; mov %esi, (%eax); dec %ecx; jnz again
    code.extend([
        0x69, 0xf6, 0x6d, 0x4e, 0xc6, 0x41, 0x81, 0xc6, 0x39, 0x30, 0, 0,
    ]);
    code.extend([0x89, 0xf0, 0xc1, 0xe8, 5, 0x25, 0xfc, 0xff, 0x7f, 0]);
    code.extend([5, 0, 0, 0x80, 0, 0x89, 0x30, 0x49, 0x75, 0xe0]);
    // mov %esi, %eax; out %eax, $0xf4
    code.extend([0x89, 0xf0, 0xe7, 0xf4]);
    code
}

/// All that must be the same: RAM and the registers.
fn must_equal(a: &Snapshot, b: &Snapshot) {
    assert_eq!(a.vcpu().regs(), b.vcpu().regs());
    for number in 0..a.memory().pages() {
        let (a, b) = (a.memory().page(number), b.memory().page(number));
        assert!(a == b, "page {number:#x}");
    }
}

#[test]
fn ram_is_put_back_to_the_byte() {
    let mut machine = machine(&scribble(20_000), Control::OFF);
    let mut snapshots = vec![machine.snapshot().unwrap()];
    while machine.run(Duration::from_millis(20)).unwrap() == Stop::Hang && snapshots.len() < 100 {
        snapshots.push(machine.snapshot().unwrap());
    }
    let stop = machine.run(LONG).unwrap();
    assert!(matches!(stop, Stop::PowerOff { .. }), "{stop:?}");
    let end = machine.snapshot().unwrap();
    eprintln!("{} moments", snapshots.len());
    for snapshot in snapshots.iter().rev().chain(&snapshots) {
        machine.restore(snapshot).unwrap();
        must_equal(&machine.snapshot().unwrap(), snapshot);
        assert_eq!(machine.run(LONG).unwrap(), stop);
        must_equal(&machine.snapshot().unwrap(), &end);
    }
}

#[test]
fn what_the_vmm_wrote_is_put_back_too() {
    let mut machine = machine(&[0xeb, 0xfe], Control::OFF);
    let snapshot = machine.snapshot().unwrap();
    let write = |machine: &Machine, page| {
        machine
            .ram()
            .put_page(page, &[1; 4096], |_, _, _| {})
            .unwrap();
        use vm_memory::{Bytes, GuestAddress};
        let at = GuestAddress(page * 4096 + 4095);
        machine.ram().map.write_slice(&[2, 3], at).unwrap();
    };
    write(&machine, 0x900);
    assert_eq!(machine.restore(&snapshot).unwrap().dirty, 2);
    must_equal(&machine.snapshot().unwrap(), &snapshot);
    // And what was withdrawn is back, what was not is there.
    machine.ram().withdraw(0x5000).unwrap();
    let withdrawn = machine.snapshot().unwrap();
    machine.restore(&snapshot).unwrap();
    assert!(machine.ram().restrictions().is_empty());
    machine.restore(&withdrawn).unwrap();
    assert_eq!(machine.ram().restrictions().len(), 1);
}

#[test]
fn the_dead_stay_dead_until_they_are_put_back() {
    // ud2 without an IDT.
    let code = [ring(lab::POINT, 1), vec![0x0f, 0x0b]].concat();
    let mut machine = machine(&code, Control::OFF);
    assert_eq!(machine.run(LONG).unwrap(), Stop::Point(1));
    let alive = machine.snapshot().unwrap();
    for _ in 0..3 {
        let death = machine.run(LONG).unwrap();
        assert!(
            matches!(&death, Stop::Died(text) if text.contains("SHUTDOWN")),
            "{death:?}"
        );
        assert_eq!(machine.run(LONG).unwrap(), death);
        let dead = machine.snapshot().unwrap();
        machine.restore(&alive).unwrap();
        machine.restore(&dead).unwrap();
        assert_eq!(machine.run(LONG).unwrap(), death);
        machine.restore(&alive).unwrap();
    }
}

#[test]
fn guests_that_do_not_stop_hang() {
    // Spinning, halted for ever, hammering a port, and writing to a port for ever with one
    // instruction (rep outsb).
    for code in [
        &[0xeb, 0xfe][..],
        &[0xfa, 0xf4, 0xeb, 0xfd],
        &[0xe6, 0x80, 0xeb, 0xfc],
        &[
            0x66, 0xba, 0x80, 0, 0xb9, 255, 255, 255, 127, 0xfc, 0xf3, 0x6e, 0xeb, 0xf3,
        ],
    ] {
        let mut machine = machine(code, Control::OFF);
        let snapshot = machine.snapshot().unwrap();
        for _ in 0..3 {
            assert_eq!(machine.run(Duration::from_millis(30)).unwrap(), Stop::Hang);
            let hanging = machine.snapshot().unwrap();
            machine.restore(&snapshot).unwrap();
            machine.restore(&hanging).unwrap();
        }
    }
}
