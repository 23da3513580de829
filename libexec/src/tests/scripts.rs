use crate::script::{self, Line, MAX};
use abi::Errno;
use proptest::prelude::*;
use std::vec::Vec;

fn line<'a>(interpreter: &'a [u8], argument: Option<&'a [u8]>) -> Option<Result<Line<'a>, Errno>> {
    Some(Ok(Line {
        interpreter,
        argument,
    }))
}

#[test]
fn lines() {
    let sh: &[u8] = b"/bin/sh";
    assert_eq!(script::parse(b"#!/bin/sh\necho"), line(sh, None));
    assert_eq!(script::parse(b"#! \t/bin/sh \t\n"), line(sh, None));
    assert_eq!(script::parse(b"#!/bin/sh -e\n"), line(sh, Some(b"-e")));
    assert_eq!(
        script::parse(b"#!/bin/sh\t -a  b \t\nx"),
        line(sh, Some(b"-a  b"))
    );
    assert_eq!(script::parse(b"#!/bin/sh\r\n"), line(b"/bin/sh\r", None));
    // A file that ends is as good as a newline.
    assert_eq!(script::parse(b"#!/bin/sh"), line(sh, None));
    assert_eq!(script::parse(b"#!/bin/sh -e"), line(sh, Some(b"-e")));
    assert_eq!(
        script::parse(b"#!/bin/sh -e\0junk\n"),
        line(sh, Some(b"-e"))
    );
}

#[test]
fn refused() {
    for bad in [
        &b"#!"[..],
        b"#!\n",
        b"#!  \t \n/bin/sh\n",
        b"#!   ",
        b"#!\0/bin/sh\n",
    ] {
        assert_eq!(script::parse(bad), Some(Err(Errno::ENOEXEC)), "{bad:?}");
    }
    for other in [&b""[..], b"#", b"# !/bin/sh\n", b"\x7fELF", b"echo\n"] {
        assert_eq!(script::parse(other), None);
    }
}

#[test]
fn long_lines() {
    let mut text = b"#!/".to_vec();
    text.resize(MAX + 10, b'a');
    assert_eq!(
        script::parse(&text),
        Some(Err(Errno::ENOEXEC)),
        "path cut off"
    );
    text[MAX - 1] = b' ';
    assert_eq!(script::parse(&text), line(&text[2..MAX - 1], None));
    text[20] = b' ';
    text[MAX - 1] = b'a';
    // An argument may be cut off, and loses the last byte.
    assert_eq!(
        script::parse(&text),
        line(&text[2..20], Some(&text[21..MAX - 1]))
    );
    // A newline beyond the limit does not count.
    text[MAX] = b'\n';
    assert_eq!(
        script::parse(&text),
        line(&text[2..20], Some(&text[21..MAX - 1]))
    );
}

proptest! {
    #[test]
    fn any_bytes(rest in prop::collection::vec(prop_oneof![Just(b' '), Just(b'\n'), Just(0), any::<u8>()], 0..400)) {
        let mut text: Vec<u8> = b"#!".to_vec();
        text.extend(rest);
        if let Some(Ok(line)) = script::parse(&text) {
            prop_assert!(!line.interpreter.is_empty());
            for part in [Some(line.interpreter), line.argument].into_iter().flatten() {
                prop_assert!(!part.contains(&0) && !part.contains(&b'\n'));
                prop_assert!(!part.starts_with(b" ") && !part.ends_with(b" "));
            }
            prop_assert!(!line.interpreter.contains(&b' '));
        }
    }
}
