//! What a copy does that may fail (TRY) and meets an absent page: the switch that shows what
//! failable copies are good for. Chosen at boot with [`crate::boot::CMDLINE_COPY`].

use crate::boot::CMDLINE_COPY;
use crate::command_line;

/// The policy of a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CopyPolicy {
    /// The copy fails, whoever asked for it has VM repair the range and tries again.
    #[default]
    Try,
    /// The world before: the copier is parked and VM repairs behind its back, whatever that
    /// takes.
    Transparent,
    /// The copier is parked, and VM repairs what it can repair at once: the copy fails only
    /// for a page that has to come from a file.
    FileOnly,
}

impl CopyPolicy {
    /// All of them.
    pub const ALL: [CopyPolicy; 3] = [
        CopyPolicy::Try,
        CopyPolicy::Transparent,
        CopyPolicy::FileOnly,
    ];

    /// Its name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            CopyPolicy::Try => "try",
            CopyPolicy::Transparent => "transparent",
            CopyPolicy::FileOnly => "file-only",
        }
    }

    /// The policy of this name.
    pub fn named(name: &[u8]) -> Option<CopyPolicy> {
        CopyPolicy::ALL
            .into_iter()
            .find(|policy| policy.name().as_bytes() == name)
    }

    /// What a kernel command line says; the last word counts, and without one it is
    /// [`CopyPolicy::Try`].
    pub fn of_command_line(line: &[u8]) -> CopyPolicy {
        let mut known = command_line::values(line, CMDLINE_COPY).filter_map(CopyPolicy::named);
        known.next_back().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_name_the_policy() {
        let of = |line: &str| CopyPolicy::of_command_line(line.as_bytes());
        assert_eq!(of(""), CopyPolicy::Try);
        assert_eq!(of("a b absentia.copy=transparent"), CopyPolicy::Transparent);
        assert_eq!(of("absentia.copy=file-only x=y"), CopyPolicy::FileOnly);
        assert_eq!(
            of("absentia.copy=transparent absentia.copy=try"),
            CopyPolicy::Try
        );
        assert_eq!(of("absentia.copy=maybe"), CopyPolicy::Try);
        assert_eq!(of("xabsentia.copy=transparent"), CopyPolicy::Try);
    }
}
