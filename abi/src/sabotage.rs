//! Deliberate defects, to prove that the explorer finds them. Each is one bit of
//! [`crate::trace::Control::sabotage`] (kernel) and of the boot word
//! [`CMDLINE_SABOTAGE`] (servers); nothing sets them but tests and `absentia explore --sabotage`.

/// `absentia.sabotage=<name>` on the kernel's command line.
pub const CMDLINE_SABOTAGE: &str = "absentia.sabotage=";

macro_rules! defects {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $word:literal;)*) => {
        $($(#[$doc])* pub const $name: u64 = 1 << $bit;)*

        /// Their names on command lines.
        pub const NAMES: &[(&str, u64)] = &[$(($word, $name)),*];
    };
}

defects! {
    /// A fill does not honour TRY: it parks its caller (the reference's own defect).
    FILL_IGNORES_TRY = 0, "fill-ignores-try";
    /// A failed copy leaves no mark in the grant.
    NO_MARK = 1, "no-mark";
    /// Repair asks for reading what will be written.
    REPAIR_FOR_READING = 2, "repair-for-reading";
    /// A transfer that is tried again starts behind what the failed attempt moved.
    OFFSET_LOST = 3, "offset-lost";
    /// An answer of VM counts for whichever request waits first.
    ANSWER_CROSSED = 4, "answer-crossed";
    /// A transfer keeps page-ins out while it is repaired.
    LOCK_OVER_REPAIR = 5, "lock-over-repair";
    /// A page that is brought in is not the file system's, but a copy of it.
    CACHE_NOT_SHARED = 6, "cache-not-shared";
    /// Data leaves a pipe twice when its reader's memory had to be repaired.
    DOUBLE_RESTART = 7, "double-restart";
    /// A page that went away keeps its frame.
    FRAME_LEAKED = 8, "frame-leaked";
    /// A read that was repaired twice keeps the file's position locked.
    LOCK_KEPT = 9, "lock-kept";
    /// A fork that finds no memory keeps a frame.
    REFUSED_FRAME_KEPT = 20, "refused-frame-kept";
}

/// The bits that a kernel command line names.
pub fn of_command_line(line: &[u8]) -> u64 {
    line.split(|&byte| byte == b' ' || byte == b'\n')
        .filter_map(|word| word.strip_prefix(CMDLINE_SABOTAGE.as_bytes()))
        .flat_map(|names| names.split(|&byte| byte == b','))
        .filter_map(|name| NAMES.iter().find(|(known, _)| known.as_bytes() == name))
        .fold(0, |bits, (_, bit)| bits | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_name_defects() {
        assert_eq!(of_command_line(b"a b"), 0);
        assert_eq!(
            of_command_line(b"x absentia.sabotage=no-mark,double-restart y"),
            NO_MARK | DOUBLE_RESTART
        );
        assert_eq!(of_command_line(b"absentia.sabotage=nothing"), 0);
        assert_eq!(NAMES.len(), 11);
    }
}
