//! Answers with what goes along ([`abi::kernel::Ipc::CopyPostReceive`]): copies that fail keep the answer back, and
//! copies that are parked have the whole trap made again, once.

use super::{ALL, PRESENT, TOLD, change, direct, holds, page, requests, row};
use crate::check;
use abi::grant::Cpf;
use abi::kernel::{MAX_VECTOR, SafeCopy};
use abi::{Class, Endpoint, Errno, Message, PAGE};
use rt::ipc::{self, Received};

/// Copies two pages of the granter to pages 4 and 5, and posts `message` to `second`, who posts it back.
fn answer(second: Endpoint, flags: Cpf, message: Message) -> Result<Received, Errno> {
    let grant = direct(flags, 0, 2);
    let copies = [0, 1].map(|n| SafeCopy {
        granter: Endpoint::VM.0,
        grant,
        offset: n * PAGE,
        address: page(4 + n),
        len: PAGE,
        to_grant: 0,
    });
    // SAFETY: pages 4 and 5 belong to these rows, and nobody borrows them.
    unsafe { ipc::copy_post_receive(&copies, second, message) }
}

fn came_back(received: Result<Received, Errno>, second: Endpoint, message: Message) {
    let received = check("answer", received);
    assert!(received.class == Class::Post && received.source == second);
    assert_eq!(received.message, message);
}

/// The row.
pub fn along(second: Endpoint) {
    came_back(answer(second, ALL, TOLD), second, TOLD);
    assert!(holds(4, 1) && holds(5, 2));

    change(1, PRESENT, 0);
    let kept_back = Message::new(1);
    let failed = answer(second, ALL | Cpf::TRY, kept_back);
    assert_eq!(failed.err(), Some(Errno::EFAULT));
    assert_eq!(requests(), 0);

    // The one that was kept back would have come first.
    came_back(answer(second, ALL, TOLD), second, TOLD);
    assert_eq!(requests(), 1);
    assert!(holds(5, 2));

    let copy = SafeCopy {
        granter: Endpoint::VM.0,
        grant: direct(ALL, 0, 1),
        offset: 0,
        address: page(4),
        len: PAGE,
        to_grant: 0,
    };
    let many = [copy; MAX_VECTOR + 1];
    // SAFETY: as above.
    let refused = unsafe { ipc::copy_post_receive(&many, second, kept_back) };
    assert_eq!(refused.err(), Some(Errno::EINVAL));
    came_back(answer(second, ALL, TOLD), second, TOLD);
    row("along");
}
