use crate::ldisc::{LINE_MAX, Ldisc};
use linux_raw_sys::general as linux;
use std::string::String;
use std::vec;
use std::vec::Vec;

fn typed(ldisc: &mut Ldisc, text: &[u8]) -> Vec<i32> {
    text.iter().filter_map(|&byte| ldisc.input(byte)).collect()
}

fn echo(ldisc: &mut Ldisc) -> String {
    String::from_utf8(ldisc.take_echo()).unwrap()
}

fn read(ldisc: &mut Ldisc, max: usize) -> Vec<u8> {
    let taken = ldisc.peek(max);
    ldisc.consume(taken.cells);
    taken.bytes
}

fn with(change: impl FnOnce(&mut crate::termios::Settings)) -> Ldisc {
    let mut ldisc = Ldisc::default();
    let mut settings = *ldisc.settings();
    change(&mut settings);
    ldisc.set(settings);
    ldisc
}

fn raw(min: u8, time: u8) -> Ldisc {
    with(|s| {
        s.local &= !(linux::ICANON | linux::ECHO);
        s.chars[linux::VMIN as usize] = min;
        s.chars[linux::VTIME as usize] = time;
    })
}

#[test]
fn a_line_is_read_when_it_ends() {
    let mut l = Ldisc::default();
    typed(&mut l, b"ab");
    assert!(!l.has_line());
    assert_eq!(l.available(), 0);
    typed(&mut l, b"c\rsecond\n");
    assert_eq!(l.available(), 11);
    assert_eq!(read(&mut l, 2), b"ab");
    assert_eq!(read(&mut l, 100), b"c\n");
    assert_eq!(read(&mut l, 100), b"second\n");
    assert!(!l.has_line());
    assert_eq!(echo(&mut l), "abc\r\nsecond\r\n");
}

#[test]
fn end_of_file_at_the_start_of_a_line_reads_nothing() {
    let mut l = Ldisc::default();
    typed(&mut l, b"x\x04\x04");
    assert_eq!(read(&mut l, 100), b"x");
    assert!(l.has_line());
    assert_eq!(read(&mut l, 100), b"");
    assert!(!l.has_line());
    assert_eq!(echo(&mut l), "x");
}

#[test]
fn erase_removes_whole_characters_and_stops_at_the_line() {
    let mut l = Ldisc::default();
    typed(&mut l, "one\naé".as_bytes());
    l.take_echo();
    typed(&mut l, b"\x7f");
    assert_eq!(echo(&mut l), "\x08 \x08");
    typed(&mut l, b"\x7f\x7f\x7fz\n");
    assert_eq!(echo(&mut l), "\x08 \x08z\r\n");
    assert_eq!(read(&mut l, 100), b"one\n");
    assert_eq!(read(&mut l, 100), b"z\n");
}

#[test]
fn erasing_a_tab_goes_back_as_far_as_it_reached() {
    let mut l = Ldisc::default();
    l.output(b"$ ");
    typed(&mut l, b"a\t");
    l.take_echo();
    typed(&mut l, b"\x7f");
    // From column 8 back to 3.
    assert_eq!(echo(&mut l), "\x08 \x08".repeat(5));
    typed(&mut l, b"\x01");
    assert_eq!(echo(&mut l), "^A");
    typed(&mut l, b"\x7f");
    assert_eq!(echo(&mut l), "\x08 \x08".repeat(2));
}

#[test]
fn word_erase_and_kill() {
    let mut l = Ldisc::default();
    typed(&mut l, b"foo bar-baz  ");
    l.take_echo();
    typed(&mut l, b"\x17");
    assert_eq!(echo(&mut l), "\x08 \x08".repeat(5));
    typed(&mut l, b"!\n");
    assert_eq!(read(&mut l, 100), b"foo bar-!\n");
    typed(&mut l, b"gone\x15kept\n");
    assert_eq!(read(&mut l, 100), b"kept\n");
    let mut plain = with(|s| s.local &= !linux::ECHOKE);
    typed(&mut plain, b"gone\x15kept\n");
    assert_eq!(echo(&mut plain), "gone^U\r\nkept\r\n");
}

#[test]
fn signals_flush_what_was_typed_unless_told_not_to() {
    let mut l = Ldisc::default();
    assert_eq!(typed(&mut l, b"junk\x03\x1c\x1a"), [2, 3, 20]);
    assert_eq!(echo(&mut l), "junk^C^\\^Z");
    typed(&mut l, b"\n");
    assert_eq!(read(&mut l, 9), b"\n");
    let mut keep = with(|s| s.local |= linux::NOFLSH);
    typed(&mut keep, b"kept\x03\n");
    assert_eq!(read(&mut keep, 9), b"kept\n");
    let mut none = with(|s| s.local &= !linux::ISIG);
    assert_eq!(typed(&mut none, b"\x03\n"), []);
    assert_eq!(read(&mut none, 9), b"\x03\n");
}

#[test]
fn literal_next_and_reprint() {
    let mut l = Ldisc::default();
    assert_eq!(typed(&mut l, b"a\x16\x03b\x12\n"), []);
    assert_eq!(echo(&mut l), "a^\x08^Cb^R\r\na^Cb\r\n");
    assert_eq!(read(&mut l, 9), b"a\x03b\n");
}

#[test]
fn flow_control_stops_and_starts_output() {
    let mut l = Ldisc::default();
    typed(&mut l, b"\x13");
    assert!(l.stopped());
    typed(&mut l, b"x");
    assert!(l.stopped());
    typed(&mut l, b"\x11");
    assert!(!l.stopped());
    let mut any = with(|s| s.input |= linux::IXANY);
    typed(&mut any, b"\x13x");
    assert!(!any.stopped());
}

#[test]
fn raw_mode_passes_everything_and_keeps_it_across_the_switch() {
    let mut l = raw(1, 0);
    typed(&mut l, b"\x7f\x15\x04\x1b[A");
    assert_eq!(read(&mut l, 100), b"\x7f\x15\x04\x1b[A");
    assert_eq!(echo(&mut l), "");
    let mut l = Ldisc::default();
    typed(&mut l, b"one\npart");
    let cooked = *l.settings();
    l.set(*raw(1, 0).settings());
    assert_eq!(l.available(), 8);
    assert_eq!(read(&mut l, 6), b"one\npa");
    l.set(cooked);
    assert_eq!(read(&mut l, 100), b"rt");
}

#[test]
fn carriage_returns_follow_the_flags() {
    let mut l = with(|s| s.input = linux::IGNCR);
    typed(&mut l, b"a\rb\n");
    assert_eq!(read(&mut l, 9), b"ab\n");
    let mut l = with(|s| s.input = linux::INLCR);
    typed(&mut l, b"a\n\x04");
    assert_eq!(read(&mut l, 9), b"a\r");
    let mut l = with(|s| s.local = linux::ICANON | linux::ECHONL);
    typed(&mut l, b"secret\r");
    assert_eq!(echo(&mut l), "\r\n");
}

#[test]
fn output_is_processed_only_with_opost() {
    let mut l = Ldisc::default();
    assert_eq!(l.output(b"a\nb\tc\r"), b"a\r\nb\tc\r");
    let mut tabs = with(|s| s.output |= linux::XTABS);
    assert_eq!(tabs.output(b"\nb\tc"), b"\r\nb       c");
    let mut l = with(|s| s.output = 0);
    assert_eq!(l.output(b"a\n"), b"a\n");
}

#[test]
fn a_line_has_a_longest_length() {
    let mut l = Ldisc::default();
    typed(&mut l, &vec![b'x'; 3 * LINE_MAX]);
    typed(&mut l, b"\n");
    assert_eq!(read(&mut l, usize::MAX).len(), LINE_MAX + 1);
    assert_eq!(l.held(), 0);
}
