//! Capabilities (capabilities(7)): what of root's rights a process has. There are no file
//! capabilities or ambient ones, and of securebits only PR_SET_KEEPCAPS'; the bounding set is full.

use crate::calls::Caller;
use crate::ids::Triple;
use crate::server::Pm;
use crate::system::System;
use abi::message::WORDS;
use abi::{Errno, capability};

const VERSION_1: u32 = 0x1998_0330;
const VERSION_3: u32 = 0x2008_0522;

/// The sets of a process, as bits of [`abi::capability`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// What counts.
    pub effective: u64,
    /// What it may make count.
    pub permitted: u64,
    /// What root's programs keep.
    pub inheritable: u64,
    /// A change of users leaves what is permitted (PR_SET_KEEPCAPS), until the next exec.
    pub kept: bool,
}

impl Capabilities {
    /// Of a program that begins with these users: root's has all. What it inherits goes on to
    /// those it executes.
    pub fn of_program(user: Triple, inheritable: u64) -> Capabilities {
        let all = |has: bool| if has { capability::ALL } else { 0 };
        Capabilities {
            effective: all(user.effective == 0),
            permitted: all(user.effective == 0 || user.real == 0),
            inheritable,
            kept: false,
        }
    }

    /// The users changed (`cap_emulate_setxuid`): who leaves root behind leaves it all behind,
    /// unless asked to keep it.
    pub fn users_changed(&mut self, old: Triple, new: Triple) {
        if old.has(0) && !new.has(0) && !self.kept {
            (self.effective, self.permitted) = (0, 0);
        }
        match (old.effective == 0, new.effective == 0) {
            (true, false) => self.effective = 0,
            (false, true) => self.effective = self.permitted,
            _ => {}
        }
    }

    /// The file system user changed (setfsuid(2)).
    pub fn file_user_changed(&mut self, old: u32, new: u32) {
        match (old == 0, new == 0) {
            (true, false) => self.effective &= !capability::FS_SET,
            (false, true) => self.effective |= self.permitted & capability::FS_SET,
            _ => {}
        }
    }

    /// capset(2) (`cap_capset`): nothing is gained. `EPERM`.
    fn replaced(&self, new: Capabilities) -> Result<Capabilities, Errno> {
        let inherits = if self.effective & capability::SETPCAP != 0 {
            capability::ALL
        } else {
            self.inheritable | self.permitted
        };
        let gained = new.inheritable & !inherits
            | new.permitted & !self.permitted
            | new.effective & !new.permitted;
        if gained == 0 {
            Ok(new)
        } else {
            Err(Errno::EPERM)
        }
    }

    fn words(&self) -> [u64; 3] {
        [self.effective, self.permitted, self.inheritable]
    }
}

impl<S: System> Pm<S> {
    /// The header of capget and capset: how many 32-bit halves there are, and the process.
    fn capability_header(
        &mut self,
        caller: Caller,
        a: [u64; WORDS],
    ) -> Result<(usize, u32), Errno> {
        let version = self.read_u32(caller.who, a[0])?;
        let halves = match version {
            VERSION_1 => 1,
            _ if version & !1 == VERSION_3 & !1 => 2,
            _ => {
                self.write_u32(caller.who, a[0], VERSION_3)?;
                return Err(Errno::EINVAL);
            }
        };
        Ok((halves, self.read_u32(caller.who, a[0].wrapping_add(4))?))
    }

    /// capget(header, data).
    pub fn capget(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let (halves, pid) = match self.capability_header(caller, a) {
            // Asked for the version alone.
            Ok(_) | Err(Errno::EINVAL) if a[1] == 0 => return Ok(0),
            header => header?,
        };
        if (pid as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        let target = if pid == 0 { caller.pid } else { pid };
        let sets = self.ids(target)?.capabilities.words();
        let mut bytes = [0; 24];
        // effective, permitted, inheritable; then the same for the high halves.
        for (half, part) in bytes.chunks_exact_mut(12).enumerate() {
            for (set, word) in sets.iter().zip(part.chunks_exact_mut(4)) {
                word.copy_from_slice(&((set >> (32 * half)) as u32).to_le_bytes());
            }
        }
        self.write_bytes(caller.who, a[1], &bytes[..12 * halves])?;
        Ok(0)
    }

    /// capset(header, data).
    pub fn capset(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let (halves, pid) = self.capability_header(caller, a)?;
        if pid != 0 && pid != caller.pid {
            return Err(Errno::EPERM);
        }
        let mut bytes = [0; 24];
        self.read_bytes(caller.who, a[1], &mut bytes[..12 * halves])?;
        let mut sets = [0; 3];
        let (words, _) = bytes.as_chunks::<4>();
        for (at, word) in words.iter().enumerate() {
            sets[at % 3] |= u64::from(u32::from_le_bytes(*word)) << (32 * (at / 3));
        }
        let [effective, permitted, inheritable] = sets.map(|set| set & capability::ALL);
        let process = self.table.process_mut(caller.pid).ok_or(Errno::ESRCH)?;
        let old = process.ids.capabilities;
        let new = Capabilities {
            effective,
            permitted,
            inheritable,
            kept: old.kept,
        };
        process.ids.capabilities = old.replaced(new)?;
        self.tell_vfs_ids(caller.pid);
        Ok(0)
    }
}
