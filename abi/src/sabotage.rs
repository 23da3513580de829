//! Deliberate defects: each takes one mechanism out, to prove that the explorer or a test finds it.
//! A defect is one bit of [`crate::trace::Control::sabotage`] (kernel) and of the boot word
//! [`CMDLINE_SABOTAGE`] (servers); nothing sets them but tests and `absentia explore --sabotage`.
//! `tests/sabotage.rs` says which test each must turn red, and tries it.

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
    /// The kernel does not honour TRY: a copy that may fail parks its copier.
    TRY_IGNORED = 10, "try-ignored";
    /// The mark of an indirect grant is left at the entry that the copier named.
    MARK_AT_FIRST = 11, "mark-at-first";
    /// A copier is parked for a writable page whichever side of the copy is absent.
    SOURCE_FOR_WRITING = 12, "source-for-writing";
    /// A grant's id counts whatever its sequence number.
    SEQUENCE_IGNORED = 13, "sequence-ignored";
    /// A grant is good for whoever uses it.
    GRANTEE_IGNORED = 14, "grantee-ignored";
    /// Physical memory is for every server.
    PHYSICAL_FOR_ALL = 15, "physical-for-all";
    /// A parked copier gets VM's answer in place of its copy.
    CALL_NOT_REPEATED = 16, "call-not-repeated";
    /// A program that jumps to where calls enter the kernel has made one, whatever its flags.
    ENTRY_FORGED = 17, "entry-forged";
    /// Frames are given to whoever asks, to the last.
    CLAIM_IGNORED = 18, "claim-ignored";
    /// What is taken from a file stays mapped.
    MAPPING_LEFT = 19, "mapping-left";
    /// VM does not say how much of a range it made present.
    GOOD_UNSAID = 20, "good-unsaid";
    /// A shared futex is named by its address.
    FUTEX_BY_ADDRESS = 21, "futex-by-address";
    /// VFS has no memory repaired: a copy that failed has failed.
    NO_REPAIR = 22, "no-repair";
    /// VM asks for a page again and again when it does not come.
    ASKED_FOR_EVER = 23, "asked-for-ever";
    /// The entry of a grant that a copy reads need not be in use.
    UNUSED_GRANTS = 24, "unused-grants";
    /// What a grant allows is not looked at: reading and writing, and where it ends.
    ACCESS_IGNORED = 25, "access-ignored";
    /// VM does for everybody what it does for those who may ask.
    VM_TRUSTS_ALL = 26, "vm-trusts-all";
    /// PM believes whoever sends.
    PM_TRUSTS_ALL = 27, "pm-trusts-all";
    /// VFS believes whoever sends.
    VFS_TRUSTS_ALL = 28, "vfs-trusts-all";
    /// VFS's limits are those of a machine that has all the memory there could be.
    UNCHARGED = 29, "uncharged";
    /// A fork that finds no memory keeps a frame.
    REFUSED_FRAME_KEPT = 30, "refused-frame-kept";
    /// Physical memory is for nobody.
    PHYSICAL_FOR_NOBODY = 31, "physical-for-nobody";
}

/// Environment variable with the names of defects that tests have their machines started with, and
/// that servers' tests on the host obey.
pub const VARIABLE: &str = "ABSENTIA_SABOTAGE";

/// The bits of names with commas between them. What is no name is nothing.
pub fn of_names(names: &[u8]) -> u64 {
    names
        .split(|&byte| byte == b',')
        .filter_map(|name| NAMES.iter().find(|(known, _)| known.as_bytes() == name))
        .fold(0, |bits, (_, bit)| bits | bit)
}

/// The bits that a kernel command line names.
pub fn of_command_line(line: &[u8]) -> u64 {
    crate::command_line::values(line, CMDLINE_SABOTAGE)
        .fold(0, |bits, names| bits | of_names(names))
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
        assert_eq!(NAMES.len(), 32);
        let bits = NAMES.iter().fold(0, |bits, (_, bit)| bits | bit);
        assert_eq!(bits.count_ones(), 32);
    }
}
