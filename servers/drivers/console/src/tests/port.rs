use crate::port::{DMA_PAGES, VirtioPort};
use crate::world::{PAYLOAD, Port};
use abi::hostlink::Channel;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;
use virtio::fake::FakeDevice;
use virtio::{Features, dma};

/// Takes output; answers the first three receive buffers with what they hold already plus
/// a byte each, and keeps the rest.
fn device(queue: u16, readable: &[u8], writable: &mut [u8]) -> Option<usize> {
    match queue {
        1 => {
            assert!(!readable.is_empty() && writable.is_empty());
            Some(0)
        }
        _ => {
            assert_eq!(writable.len(), abi::PAGE_SIZE);
            let given = GIVEN.get();
            if given == 3 {
                return None;
            }
            GIVEN.set(given + 1);
            writable[..2].copy_from_slice(&[b'a' + given, b'!']);
            Some(2)
        }
    }
}

std::thread_local! {
    static GIVEN: core::cell::Cell<u8> = const { core::cell::Cell::new(0) };
}

#[test]
fn packets_through_the_rings() {
    let memory = vec![[0; abi::PAGE_SIZE]; DMA_PAGES + 2];
    dma::init_identity(Box::leak(memory.into_boxed_slice()));
    let mut fake = FakeDevice::new(Features::VERSION_1, &[], device);
    // SIZE, MULTIPORT and EMERG_WRITE are offered and not taken.
    fake.features |= 7;
    let mut port = VirtioPort::new(fake).unwrap();
    assert_eq!(port.device().accepted, Features::VERSION_1.bits());
    let mut got = Vec::new();
    port.receive(|bytes| got.extend_from_slice(bytes));
    assert_eq!(got, b"a!b!c!");

    // Many times around the ring, without an interrupt.
    let interrupts = port.device().interrupts;
    for _ in 0..100 {
        assert!(port.send(Channel::Stdout, &[b'x'; PAYLOAD]));
        assert!(port.push() && port.drained());
    }
    assert_eq!(port.device().interrupts, interrupts);

    // A device that takes its time: the ring fills, and it is asked to interrupt.
    port.device().synchronous = false;
    let mut sent = 0;
    while port.send(Channel::Stderr, b"slow") {
        sent += 1;
    }
    assert_eq!(sent, 16);
    assert!(!port.push() && !port.drained());
    port.device().work();
    assert_eq!(port.device().interrupts, interrupts + 16);
    port.acknowledge();
    assert!(port.push() && port.drained());
}
