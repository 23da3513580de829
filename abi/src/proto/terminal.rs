//! Requests to the console's driver that have to do with its terminals as such, and with the host.

use crate::protocol;

protocol! {
    base = 0x6100;
    servers = [CONSOLE];

    /// PROGRAM ended with this wait status. Answered
    /// when all output before it and the exit packet have reached the host.
    #[from(PM)]
    wait ExitStatus = 1 {
        /// As wait4 reports it.
        status: u32,
    };
    /// The leader of a session ended; its terminal is nobody's any more.
    #[from(PM)]
    post SessionEnded = 2 {
        /// The session.
        session: u32,
    };
    /// The controlling terminal of a session. `ENXIO`.
    #[from(PROC)]
    call TerminalOf = 3 {
        /// The session.
        session: u32,
    } -> Terminal {
        /// Its device number, as stat(2) has it.
        device: u64,
        /// Its foreground process group.
        group: u32,
    };
    /// How many pseudo-terminals there are and may be.
    #[from(PROC)]
    call PtyLimits = 4 {} -> PtyFigures {
        /// There are.
        count: u64,
        /// There may be.
        most: u64,
        /// Of these, for root alone.
        reserve: u64,
    };
    /// Sets how many pseudo-terminals there may be; those beyond it stay. `EINVAL`.
    #[from(PROC)]
    call SetPtyMax = 5 {
        /// There may be.
        most: u64,
    };
}
