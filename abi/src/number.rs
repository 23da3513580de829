//! Numbers in command lines and options, as Linux reads them.

/// A number as Linux's `memparse` reads it: decimal, hexadecimal (`0x`) or octal (`0`), with K, M or G behind it for
/// so many KiB, MiB or GiB. `None` for anything else, and for what 64 bits do not hold.
pub fn parse(text: &str) -> Option<u64> {
    let shift = match text.as_bytes().last()? {
        b'k' | b'K' => 10,
        b'm' | b'M' => 20,
        b'g' | b'G' => 30,
        _ => 0,
    };
    let digits = if shift == 0 {
        text
    } else {
        &text[..text.len() - 1]
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // The library takes a sign.
    let first = digits.chars().next().filter(|first| first.is_digit(radix));
    first
        .and(u64::from_str_radix(digits, radix).ok())?
        .checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn numbers_are_linux_s() {
        let known = [
            ("0", 0),
            ("4096", 4096),
            ("0x1F", 31),
            ("0X10k", 16 << 10),
            ("017", 15),
            ("64M", 64 << 20),
            ("1g", 1 << 30),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, number) in known {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        let none = [
            "",
            "M",
            "0x",
            "-1",
            "+1",
            "1kk",
            "1 ",
            "08",
            "0x+1",
            "17179869184G",
            "1é",
        ];
        for text in none {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
