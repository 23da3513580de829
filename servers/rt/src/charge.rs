//! Charging: what a request makes a server keep is counted when the request enters, against a
//! limit of its user and one of the machine, and is given back when what was kept goes.
//!
//! An [`Account`] is one kind of thing, in a unit of its own (pages of pipes, record locks, bytes
//! of socket buffers). A [`Charge`] is a part of it in use; it lives in the object it pays for,
//! so nothing has to remember to give it back. The last part of the machine's limit is for
//! privileged users alone.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

/// Who pays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payer {
    /// The real user id.
    pub user: u32,
    /// Bound by the machine's limit alone, all of it (on Linux CAP_SYS_RESOURCE).
    pub privileged: bool,
}

/// How much of a kind there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// In the whole machine.
    pub machine: u64,
    /// Of the machine's, what only the privileged may use.
    pub reserve: u64,
    /// Of each user who is not privileged.
    pub user: u64,
}

impl Limits {
    /// `machine` in all: the last eighth for the privileged, half for any one user.
    pub const fn shared(machine: u64) -> Limits {
        Limits {
            machine,
            reserve: machine / 8,
            user: machine / 2,
        }
    }

    /// [`Limits::shared`] without a limit of each user.
    pub const fn of_machine(machine: u64) -> Limits {
        Limits {
            user: u64::MAX,
            ..Limits::shared(machine)
        }
    }
}

/// What is in use of one kind. A clone is the same account.
#[derive(Clone)]
pub struct Account(Rc<Books>);

struct Books {
    limits: Cell<Limits>,
    used: Cell<u64>,
    /// By user, in order; who uses nothing is not in it.
    users: RefCell<Vec<(u32, u64)>>,
}

impl Account {
    /// An account of which nothing is in use.
    pub fn new(limits: Limits) -> Account {
        Account(Rc::new(Books {
            limits: Cell::new(limits),
            used: Cell::new(0),
            users: RefCell::default(),
        }))
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.0.limits.get()
    }

    /// Other limits from now on; what is in use above them stays.
    pub fn set_limits(&self, limits: Limits) {
        self.0.limits.set(limits);
    }

    /// In use by everybody.
    pub fn used(&self) -> u64 {
        self.0.used.get()
    }

    /// In use by a user.
    pub fn used_by(&self, user: u32) -> u64 {
        let users = self.0.users.borrow();
        let found = users.binary_search_by_key(&user, |&(user, _)| user);
        found.map_or(0, |at| users[at].1)
    }

    /// Whether `payer` may use `amount` more.
    pub fn fits(&self, payer: Payer, amount: u64) -> bool {
        let limits = self.limits();
        let kept = if payer.privileged { 0 } else { limits.reserve };
        let within = |used: u64, limit: u64| used.saturating_add(amount) <= limit;
        within(self.used(), limits.machine.saturating_sub(kept))
            && (payer.privileged || within(self.used_by(payer.user), limits.user))
    }

    /// Charges `amount`; `None` when it is too much for the user or the machine.
    pub fn charge(&self, payer: Payer, amount: u64) -> Option<Charge> {
        let mut charge = self.nothing(payer.user);
        charge.resize(payer, amount).then_some(charge)
    }

    /// A charge of nothing for a user, to be resized.
    pub fn nothing(&self, user: u32) -> Charge {
        Charge {
            account: self.clone(),
            user,
            amount: 0,
        }
    }

    /// Books `amount` more for a user; `false` when there is no memory for the entry.
    fn add(&self, user: u32, amount: u64) -> bool {
        let mut users = self.0.users.borrow_mut();
        match users.binary_search_by_key(&user, |&(user, _)| user) {
            Ok(at) => users[at].1 += amount,
            Err(at) => {
                if users.try_reserve(1).is_err() {
                    return false;
                }
                users.insert(at, (user, amount));
            }
        }
        self.0.used.set(self.used() + amount);
        true
    }

    fn give_back(&self, user: u32, amount: u64) {
        if amount == 0 {
            return;
        }
        let mut users = self.0.users.borrow_mut();
        if let Ok(at) = users.binary_search_by_key(&user, |&(user, _)| user) {
            users[at].1 -= amount;
            if users[at].1 == 0 {
                users.remove(at);
            }
        }
        self.0.used.set(self.used() - amount);
    }
}

/// A part of an [`Account`] in use, given back on drop.
pub struct Charge {
    account: Account,
    user: u32,
    amount: u64,
}

impl Charge {
    /// Of which account.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// How much.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Makes it another amount: less always works, more as far as `payer` may. The user who is
    /// charged stays the same. `false` when nothing has changed.
    pub fn resize(&mut self, payer: Payer, amount: u64) -> bool {
        if let Some(more) = amount.checked_sub(self.amount) {
            let payer = Payer {
                user: self.user,
                ..payer
            };
            if more > 0 && !(self.account.fits(payer, more) && self.account.add(self.user, more)) {
                return false;
            }
        } else {
            self.account.give_back(self.user, self.amount - amount);
        }
        self.amount = amount;
        true
    }

    /// Takes a part of it as a charge of its own: `amount`, or what there is.
    pub fn split(&mut self, amount: u64) -> Charge {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        Charge {
            account: self.account.clone(),
            user: self.user,
            amount,
        }
    }

    /// Whether another is of the same account and user, so that it can be added.
    pub fn is_like(&self, other: &Charge) -> bool {
        self.user == other.user && Rc::ptr_eq(&self.account.0, &other.account.0)
    }

    /// Adds another to it; that one back when it is of another account or user.
    pub fn absorb(&mut self, mut other: Charge) -> Result<(), Charge> {
        if !self.is_like(&other) {
            return Err(other);
        }
        self.amount += core::mem::take(&mut other.amount);
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.give_back(self.user, self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Payer = Payer {
        user: 1000,
        privileged: false,
    };
    const OTHER: Payer = Payer {
        user: 1001,
        privileged: false,
    };
    const ROOT: Payer = Payer {
        user: 0,
        privileged: true,
    };

    #[test]
    fn a_user_has_half_all_users_seven_eighths_and_root_the_rest() {
        let account = Account::new(Limits::shared(80));
        let user = account.charge(USER, 40).unwrap();
        assert!(account.charge(USER, 1).is_none());
        let other = account.charge(OTHER, 30).unwrap();
        assert!(account.charge(OTHER, 1).is_none());
        assert!(account.fits(ROOT, 10) && !account.fits(ROOT, 11));
        let root = account.charge(ROOT, 10).unwrap();
        assert_eq!((account.used(), account.used_by(1000)), (80, 40));
        drop((user, root));
        assert_eq!((account.used(), account.used_by(1000)), (30, 0));
        drop(other);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn charges_grow_shrink_part_and_join() {
        let account = Account::new(Limits::shared(100));
        let mut charge = account.charge(USER, 10).unwrap();
        assert!(charge.resize(USER, 50) && !charge.resize(USER, 51));
        assert_eq!((charge.amount(), account.used()), (50, 50));
        // Root pays for the user's beyond the user's limit, and the user is charged.
        assert!(charge.resize(ROOT, 60));
        assert_eq!(account.used_by(1000), 60);
        // Above the limit there is still a way down.
        assert!(charge.resize(USER, 55));
        let part = charge.split(5);
        assert_eq!((charge.amount(), part.amount()), (50, 5));
        assert!(charge.absorb(part).is_ok());
        let root = account.charge(ROOT, 1).unwrap();
        assert_eq!(charge.absorb(root).map_err(|back| back.amount()), Err(1));
        drop(charge);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn lower_limits_refuse_only_what_is_new() {
        let account = Account::new(Limits::of_machine(100));
        let held = account.charge(USER, 80).unwrap();
        account.set_limits(Limits::of_machine(10));
        assert!(!account.fits(ROOT, 1));
        drop(held);
        assert!(account.charge(ROOT, 10).is_some());
    }
}
