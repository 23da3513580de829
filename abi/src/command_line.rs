//! Words of the kernel's command line: separated by white space, each a name, or a name with `=` and its value. The
//! names stand in [`crate::boot`].

/// The words of `line`.
pub fn words(line: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

/// Whether `word` is one of them.
pub fn has(line: &[u8], word: &str) -> bool {
    words(line).any(|other| other == word.as_bytes())
}

/// What follows `name`, which ends with `=`, in each word that begins with it.
pub fn values<'a>(line: &'a [u8], name: &'static str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    words(line).filter_map(move |word| word.strip_prefix(name.as_bytes()))
}

/// [`values`] of a line that is text.
pub fn texts<'a>(line: &'a str, name: &'static str) -> impl DoubleEndedIterator<Item = &'a str> {
    let words = line.split_ascii_whitespace();
    words.filter_map(move |word| word.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_separated_by_white_space() {
        let line = " a=1  quiet\ta=2\nb=x=y ";
        assert!(words(line.as_bytes()).eq(["a=1", "quiet", "a=2", "b=x=y"].map(str::as_bytes)));
        assert!(has(line.as_bytes(), "quiet") && !has(line.as_bytes(), "a"));
        assert!(!has(b"", ""));
        assert!(values(line.as_bytes(), "a=").eq([b"1", b"2"]));
        assert!(texts(line, "a=").eq(["1", "2"]));
        assert_eq!(texts(line, "b=").next(), Some("x=y"));
    }
}
