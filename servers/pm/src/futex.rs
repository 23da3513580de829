//! Futexes: queues of threads that wait at a word of memory.
//!
//! PM handles one call at a time, so reading the word and joining the queue is atomic against
//! every other futex call. What a waiter waits at is named by the object that its memory shows
//! ([`Key`]), never by what a page table holds: the page may be absent at the waiter, at the
//! waker or at both, and may be in another frame when it is back.

use crate::calls::{Caller, Outcome};
use crate::server::Pm;
use crate::sleep;
use crate::system::System;
use crate::table::Call;
use abi::message::WORDS;
use abi::proto::vm;
use abi::{Endpoint, Errno};
use alloc::collections::VecDeque;
use linux_raw_sys::general as linux;

/// A place to wait at. As on Linux, the three kinds never meet: who waits with
/// FUTEX_PRIVATE_FLAG is not woken without it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// An address of an address space, with FUTEX_PRIVATE_FLAG.
    Private {
        /// Address space.
        space: u64,
        /// Address.
        address: u64,
    },
    /// The same without, in memory that only this space has.
    Own {
        /// Address space.
        space: u64,
        /// Address.
        address: u64,
    },
    /// A place in a file or in shared anonymous memory.
    Shared {
        /// Device.
        dev: u64,
        /// Inode.
        ino: u64,
        /// Byte offset.
        offset: u64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    slot: usize,
    key: Key,
    bits: u32,
}

/// All waiters, longest waiting first.
#[derive(Default, Debug)]
pub struct Futexes {
    waiters: VecDeque<Waiter>,
}

impl Futexes {
    fn add(&mut self, slot: usize, key: Key, bits: u32) {
        self.waiters.push_back(Waiter { slot, key, bits });
    }

    /// The thread waits no more.
    pub fn remove(&mut self, slot: usize) {
        self.waiters.retain(|waiter| waiter.slot != slot);
    }

    /// Takes the longest waiting thread at `key`.
    fn take(&mut self, key: &Key, bits: u32) -> Option<usize> {
        let index = self
            .waiters
            .iter()
            .position(|waiter| waiter.key == *key && waiter.bits & bits != 0)?;
        self.waiters.remove(index).map(|waiter| waiter.slot)
    }

    /// Moves up to `count` waiters from one place to another.
    fn requeue(&mut self, from: &Key, to: Key, count: u64) -> u64 {
        let mut moved = 0;
        for waiter in &mut self.waiters {
            if moved == count {
                break;
            }
            if waiter.key == *from {
                waiter.key = to;
                moved += 1;
            }
        }
        moved
    }

    /// Threads that wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}

/// The operation in FUTEX_WAKE_OP's last argument: the new value, and whether the old one
/// fulfils the condition.
fn wake_op(encoded: u32, old: u32) -> Result<(u32, bool), Errno> {
    let field = |shift: u32, bits: u32| encoded >> shift & ((1 << bits) - 1);
    let signed12 = |value: u32| ((value << 20) as i32 >> 20) as u32;
    let mut operand = signed12(field(12, 12));
    let compared = signed12(field(0, 12)) as i32;
    let mut op = field(28, 4);
    if op & linux::FUTEX_OP_OPARG_SHIFT != 0 {
        op &= !linux::FUTEX_OP_OPARG_SHIFT;
        operand = 1u32.checked_shl(operand & 31).unwrap_or(0);
    }
    let new = match op {
        linux::FUTEX_OP_SET => operand,
        linux::FUTEX_OP_ADD => old.wrapping_add(operand),
        linux::FUTEX_OP_OR => old | operand,
        linux::FUTEX_OP_ANDN => old & !operand,
        linux::FUTEX_OP_XOR => old ^ operand,
        _ => return Err(Errno::ENOSYS),
    };
    let signed = old as i32;
    let holds = match field(24, 4) {
        linux::FUTEX_OP_CMP_EQ => signed == compared,
        linux::FUTEX_OP_CMP_NE => signed != compared,
        linux::FUTEX_OP_CMP_LT => signed < compared,
        linux::FUTEX_OP_CMP_LE => signed <= compared,
        linux::FUTEX_OP_CMP_GT => signed > compared,
        linux::FUTEX_OP_CMP_GE => signed >= compared,
        _ => return Err(Errno::ENOSYS),
    };
    Ok((new, holds))
}

impl<S: System> Pm<S> {
    fn key(&mut self, caller: Caller, address: u64, private: bool) -> Result<Key, Errno> {
        if !address.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        let process = self.table.process(caller.pid);
        let space = process.map_or(0, |process| process.space);
        if private {
            return Ok(Key::Private { space, address });
        }
        self.shared_key(caller.who, space, address)
    }

    /// The key of an address without FUTEX_PRIVATE_FLAG.
    fn shared_key(&mut self, who: Endpoint, space: u64, address: u64) -> Result<Key, Errno> {
        let object = vm::ObjectAt { who, address };
        let object = self.sys.call(Endpoint::VM, object)?;
        Ok(match object.dev {
            vm::PRIVATE_OBJECT => Key::Own { space, address },
            dev => Key::Shared {
                dev,
                ino: object.ino,
                offset: object.offset,
            },
        })
    }

    /// futex(address, op, value, timeout or value2, address2, value3).
    pub fn futex(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<Outcome, Errno> {
        let op = a[1] as u32;
        let private = op & linux::FUTEX_PRIVATE_FLAG != 0;
        let realtime = op & linux::FUTEX_CLOCK_REALTIME != 0;
        let command = op & !(linux::FUTEX_PRIVATE_FLAG | linux::FUTEX_CLOCK_REALTIME);
        let all = linux::FUTEX_BITSET_MATCH_ANY;
        let count = a[2] as u32 as u64;
        let done = |value: u64| Ok(Outcome::Done(Ok(value)));
        match command {
            linux::FUTEX_WAIT => {
                let timeout = self.futex_timeout(caller, a[3], false, realtime)?;
                self.futex_wait(caller, a[0], private, a[2] as u32, timeout, all)
            }
            linux::FUTEX_WAIT_BITSET => {
                let timeout = self.futex_timeout(caller, a[3], true, realtime)?;
                self.futex_wait(caller, a[0], private, a[2] as u32, timeout, a[5] as u32)
            }
            linux::FUTEX_WAKE => {
                let key = self.key(caller, a[0], private)?;
                done(self.wake(key, count, all))
            }
            linux::FUTEX_WAKE_BITSET => {
                if a[5] as u32 == 0 {
                    return Err(Errno::EINVAL);
                }
                let key = self.key(caller, a[0], private)?;
                done(self.wake(key, count, a[5] as u32))
            }
            linux::FUTEX_REQUEUE | linux::FUTEX_CMP_REQUEUE => {
                let from = self.key(caller, a[0], private)?;
                let to = self.key(caller, a[4], private)?;
                if command == linux::FUTEX_CMP_REQUEUE
                    && self.read_u32(caller.who, a[0])? != a[5] as u32
                {
                    return Err(Errno::EAGAIN);
                }
                let woken = self.wake(from, count, all);
                done(woken + self.futexes.requeue(&from, to, a[3] as u32 as u64))
            }
            linux::FUTEX_WAKE_OP => {
                let first = self.key(caller, a[0], private)?;
                let second = self.key(caller, a[4], private)?;
                let old = self.read_u32(caller.who, a[4])?;
                let (new, holds) = wake_op(a[5] as u32, old)?;
                self.write_u32(caller.who, a[4], new)?;
                let mut woken = self.wake(first, count, all);
                if holds {
                    woken += self.wake(second, a[3] as u32 as u64, all);
                }
                done(woken)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    /// The deadline in ns since boot, if there is one.
    fn futex_timeout(
        &mut self,
        caller: Caller,
        address: u64,
        absolute: bool,
        realtime: bool,
    ) -> Result<Option<u64>, Errno> {
        if address == 0 {
            return Ok(None);
        }
        let time = sleep::duration(self.read_words(caller.who, address)?)?;
        Ok(Some(match (absolute, realtime) {
            (false, _) => self.sys.now().saturating_add(time),
            (true, true) => time.saturating_sub(self.boot.epoch_ns),
            (true, false) => time,
        }))
    }

    fn futex_wait(
        &mut self,
        caller: Caller,
        address: u64,
        private: bool,
        expected: u32,
        deadline: Option<u64>,
        bits: u32,
    ) -> Result<Outcome, Errno> {
        if bits == 0 || !address.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if self.read_u32(caller.who, address)? != expected {
            return Err(Errno::EAGAIN);
        }
        let key = self.key(caller, address, private)?;
        if deadline.is_some_and(|deadline| deadline <= self.sys.now()) {
            return Err(Errno::ETIMEDOUT);
        }
        self.futexes.add(caller.slot, key, bits);
        let timed = deadline;
        Ok(Outcome::Hold(Call::Futex { timed }, deadline))
    }

    /// A wait that a signal interrupted goes on: its arguments, and its deadline.
    pub(crate) fn futex_again(
        &mut self,
        caller: Caller,
        a: [u64; WORDS],
        deadline: u64,
    ) -> Result<Outcome, Errno> {
        let op = a[1] as u32;
        let private = op & linux::FUTEX_PRIVATE_FLAG != 0;
        let command = op & !(linux::FUTEX_PRIVATE_FLAG | linux::FUTEX_CLOCK_REALTIME);
        let bits = match command {
            linux::FUTEX_WAIT_BITSET => a[5] as u32,
            _ => linux::FUTEX_BITSET_MATCH_ANY,
        };
        self.futex_wait(caller, a[0], private, a[2] as u32, Some(deadline), bits)
    }

    fn wake(&mut self, key: Key, count: u64, bits: u32) -> u64 {
        let mut woken = 0;
        while woken < count {
            let Some(slot) = self.futexes.take(&key, bits) else {
                break;
            };
            self.finish_call(slot, Ok(0));
            woken += 1;
        }
        woken
    }

    /// Wakes waiters at an address of a space, as the system itself does when a thread ends.
    pub fn futex_wake(&mut self, who: Endpoint, space: u64, address: u64, count: u64, bits: u32) {
        if self.futexes.is_empty() {
            return;
        }
        if let Ok(key) = self.shared_key(who, space, address) {
            self.wake(key, count, bits);
        }
    }

    /// set_tid_address(place).
    pub fn set_tid_address(&mut self, caller: Caller, place: u64) -> Outcome {
        if let Some(thread) = self.table.thread_mut(caller.slot) {
            thread.clear_tid = place;
        }
        crate::calls::ok(self.tid(caller))
    }

    /// set_robust_list(head, length).
    pub fn set_robust_list(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        if a[1] as usize != size_of::<linux::robust_list_head>() {
            return Err(Errno::EINVAL);
        }
        let thread = self.table.thread_mut(caller.slot).ok_or(Errno::ESRCH)?;
        thread.robust_list = a[0];
        Ok(0)
    }

    /// get_robust_list(tid, head, length).
    pub fn get_robust_list(&mut self, caller: Caller, a: [u64; WORDS]) -> Result<u64, Errno> {
        let slot = match a[0] as u32 {
            0 => caller.slot,
            tid => self.table.slot_of_tid(tid).ok_or(Errno::ESRCH)?,
        };
        let thread = self.table.thread(slot).ok_or(Errno::ESRCH)?;
        let (head, pid) = (thread.robust_list, thread.pid);
        self.may_access(caller, pid)?;
        self.write_words(caller.who, a[1], [head])?;
        let len = size_of::<linux::robust_list_head>() as u64;
        self.write_words(caller.who, a[2], [len])?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_op_decodes_as_linux_documents_it() {
        let encode = |op: u32, oparg: u32, cmp: u32, cmparg: u32| {
            op << 28 | cmp << 24 | (oparg & 0xfff) << 12 | cmparg & 0xfff
        };
        // glibc's pthread_cond_signal of old: set to 0, wake the second if it was > 1.
        assert_eq!(wake_op(encode(0, 0, 4, 1), 2), Ok((0, true)));
        assert_eq!(wake_op(encode(0, 0, 4, 1), 1), Ok((0, false)));
        assert_eq!(wake_op(encode(1, 0xfff, 0, 0), 5), Ok((4, false)));
        assert_eq!(wake_op(encode(2 | 8, 4, 1, 0), 1), Ok((17, true)));
        assert_eq!(wake_op(encode(7, 0, 0, 0), 1), Err(Errno::ENOSYS));
    }

    #[test]
    fn waiters_leave_in_order_and_by_bits() {
        let mut futexes = Futexes::default();
        let key = |address| Key::Private { space: 1, address };
        futexes.add(1, key(8), 1);
        futexes.add(2, key(8), 2);
        futexes.add(3, key(8), 3);
        assert_eq!(futexes.take(&key(12), u32::MAX), None);
        assert_eq!(futexes.take(&key(8), 2), Some(2));
        assert_eq!(futexes.requeue(&key(8), key(12), 1), 1);
        assert_eq!(futexes.take(&key(12), u32::MAX), Some(1));
        assert_eq!(futexes.take(&key(8), u32::MAX), Some(3));
        assert!(futexes.is_empty());
    }
}
