//! Text within XML.

use std::fmt::Write;

/// `text` as it stands in elements and attributes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // A text takes everything.
    let _ = maud::Escaper::new(&mut out).write_str(text);
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_has_a_meaning_is_escaped() {
        let text = "<a href=\"x\">&</a>";
        let wanted = "&lt;a href=&quot;x&quot;&gt;&amp;&lt;/a&gt;";
        assert_eq!(super::escaped(text), wanted);
    }
}
