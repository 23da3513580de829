//! A failure on demand, so that tests can see what a service's end does to the others: at one
//! request, which the kernel command line names ([`abi::boot::CMDLINE_FAIL`]), the service
//! dies, never answers or answers an error. Without the word nothing of this happens.

use crate::ipc::Received;
use abi::Errno;
use abi::message::Handled;

/// How the request fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// The service dies of an instruction that does not exist.
    Crash,
    /// The service dies of a page fault.
    Fault,
    /// The service never answers again, and lives.
    Hang,
    /// The service answers this.
    Answer(Errno),
}

/// The planned failure of this service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mishap {
    kind: u64,
    /// Requests of the kind until then.
    left: u64,
    how: How,
}

impl Mishap {
    /// What the argument `fail=REQUEST:N:HOW` says: at the `N`th request (from 1), `crash`,
    /// `fault`, `hang`, or an error number to answer. `requests` names the message kinds. Without the
    /// argument nothing is planned; `EINVAL` when it makes no sense.
    pub fn planned(requests: &[(&str, u64)]) -> Result<Option<Mishap>, Errno> {
        crate::args::value("fail")
            .map(|text| {
                Mishap::parse(text, requests).ok_or_else(|| {
                    crate::log!("fail={text}: not REQUEST:N:HOW");
                    Errno::EINVAL
                })
            })
            .transpose()
    }

    fn parse(text: &str, requests: &[(&str, u64)]) -> Option<Mishap> {
        let mut words = text.split(':');
        let (name, number, how) = (words.next()?, words.next()?, words.next()?);
        let &(_, kind) = requests.iter().find(|(known, _)| *known == name)?;
        let left = number.parse().ok().filter(|&n| n > 0)?;
        let how = match how {
            "crash" => How::Crash,
            "fault" => How::Fault,
            "hang" => How::Hang,
            errno => How::Answer(Errno(errno.parse().ok()?)),
        };
        words.next().is_none().then_some(Mishap { kind, left, how })
    }

    /// Has a message served, unless it is the one at which something goes wrong.
    pub fn or_serve(
        mishap: &mut Option<Mishap>,
        received: &Received,
        serve: impl FnOnce() -> Handled,
    ) -> Handled {
        let Received {
            source,
            class,
            ref message,
        } = *received;
        if let Some(mishap) = mishap
            && abi::proto::admit(source, class, message.kind).is_ok()
            && let Some(errno) = mishap.strikes(message.kind)
        {
            return Handled::failed(class, message, errno);
        }
        serve()
    }

    /// A request of this kind arrived: the error to answer instead of serving it, if it is the
    /// one. Does not return if the service is to die.
    pub fn strikes(&mut self, kind: u64) -> Option<Errno> {
        if kind != self.kind || self.left == 0 {
            return None;
        }
        self.left -= 1;
        if self.left > 0 {
            return None;
        }
        match self.how {
            How::Answer(errno) => Some(errno),
            How::Hang => loop {
                core::hint::spin_loop();
            },
            // SAFETY: `ud2` raises #UD, which ends a server; it touches nothing.
            How::Crash => unsafe { core::arch::asm!("ud2", options(noreturn)) },
            // SAFETY: nothing is ever mapped on the first page of a server: this faults, and
            // RS ends the server. If it were there, `ud2` follows.
            How::Fault => unsafe {
                core::arch::asm!("mov qword ptr [{}], 0", "ud2", in(reg) 8usize, options(noreturn))
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: [(&str, u64); 2] = [("read", 7), ("peek", 9)];

    #[test]
    fn words_are_a_request_a_number_and_a_way() {
        let parse = |text| Mishap::parse(text, &REQUESTS);
        let how = |text| parse(text).map(|m| (m.kind, m.left, m.how));
        assert_eq!(how("peek:3:crash"), Some((9, 3, How::Crash)));
        assert_eq!(how("read:1:fault"), Some((7, 1, How::Fault)));
        assert_eq!(how("read:1:hang"), Some((7, 1, How::Hang)));
        assert_eq!(how("read:1:5"), Some((7, 1, How::Answer(Errno::EIO))));
        for text in [
            "",
            "read",
            "read:1",
            "read:0:5",
            "write:1:5",
            "read:x:5",
            "read:1:x",
            "read:1:5:6",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn it_strikes_once() {
        let mut mishap = Mishap::parse("read:2:5", &REQUESTS).unwrap();
        let struck = [7, 9, 7, 7, 7].map(|kind| mishap.strikes(kind));
        assert_eq!(struck, [None, None, Some(Errno::EIO), None, None]);
    }
}
