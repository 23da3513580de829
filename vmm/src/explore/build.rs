//! Which build a token belongs to: `TOKEN#BUILD` behind its schedule, where it is known.
//!
//! What a point's number means depends on the guest's images, so a token of other images may be
//! another run.

use std::borrow::Cow;

use super::base;

/// Digits of a build's name that a token carries.
const DIGITS: usize = 8;

/// The token with the build that made it.
pub fn signed(token: &str, build: &str) -> String {
    let digits: String = build.chars().take(DIGITS).collect();
    format!("{token}#{digits}")
}

/// The token alone, and the build behind it.
pub fn split(text: &str) -> (Cow<'_, str>, Option<&str>) {
    // Before the schedule the character may mean something else.
    let schedule = text.rfind('~').unwrap_or(text.len());
    match text[schedule..].split_once('#') {
        Some((front, build)) => {
            let token = &text[..schedule + front.len()];
            (token.into(), Some(build))
        }
        None => (text.into(), None),
    }
}

/// The token alone; `warn` hears if another build than this one made it.
pub fn checked(text: &str, warn: impl FnOnce(&str)) -> Cow<'_, str> {
    let (token, build) = split(text);
    if let Some(build) = build {
        let ours = base::build();
        if build.is_empty() || !ours.starts_with(build) {
            warn(&format!(
                "the token is of build {build}, this is build {}: it may be another run here",
                &ours[..DIGITS.min(ours.len())]
            ));
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_behind_the_schedule() {
        let token = "d1-read@try+4.t0.pte~l:4=1";
        let text = signed(token, "0123456789abcdef");
        assert_eq!(text, format!("{token}#01234567"));
        assert_eq!(split(&text), (token.into(), Some("01234567")));
        assert_eq!(split(token), (token.into(), None));
        let other = "d1-read@try+4.#7.pte~first";
        assert_eq!(split(other), (other.into(), None));
        assert_eq!(split("x@try#y"), ("x@try#y".into(), None));
    }

    #[test]
    fn another_build_is_told() {
        let told = |text: &str| {
            let mut told = None;
            assert_eq!(
                checked(text, |what| told = Some(what.to_string())),
                "x@try~first"
            );
            told
        };
        assert_eq!(told("x@try~first"), None);
        assert_eq!(told(&signed("x@try~first", &base::build())), None);
        for other in ["x@try~first#", "x@try~first#zzzzzzzz"] {
            assert!(told(other).unwrap().contains("this is build"), "{other}");
        }
    }
}
