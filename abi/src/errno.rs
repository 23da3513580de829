//! Error numbers: Linux's, plus the few that never leave the system.

use linux_raw_sys::errno as linux;

/// A Linux error number, positive. Travels as its negation in result registers and words.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(#[doc = concat!("Linux's `", stringify!($name), "`.")]
            pub const $name: Errno = Errno(linux::$name.cast_signed());)*

            /// The symbolic name, or `None` for a number this table does not have.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Errno::$name => Some(stringify!($name)),)*
                    Errno::ERESTARTSYS => Some("ERESTARTSYS"),
                    Errno::ERESTARTNOINTR => Some("ERESTARTNOINTR"),
                    Errno::ERESTARTNOHAND => Some("ERESTARTNOHAND"),
                    Errno::ERESTART_RESTARTBLOCK => Some("ERESTART_RESTARTBLOCK"),
                    Errno::EDEADSRCDST => Some("EDEADSRCDST"),
                    Errno::EBACKGROUND => Some("EBACKGROUND"),
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG
    ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY
    ELOOP EOVERFLOW EUCLEAN EOPNOTSUPP ENOTSOCK EAFNOSUPPORT ETIMEDOUT EALREADY EINPROGRESS
    ELIBBAD ESTALE EDQUOT ECANCELED ECONNREFUSED EADDRINUSE EADDRNOTAVAIL ENETUNREACH ENOTCONN
    EISCONN EPROTOTYPE EPROTONOSUPPORT ESOCKTNOSUPPORT ENOPROTOOPT EDESTADDRREQ EMSGSIZE
    ECONNRESET ETOOMANYREFS ENODATA ENOBUFS
}

impl Errno {
    /// A system call was interrupted by a signal and may be restarted (SA_RESTART). Never
    /// reaches a program: PM turns it into a restart or into `EINTR`.
    pub const ERESTARTSYS: Errno = Errno(512);
    /// Likewise, and restarted whatever the handler's flags are: nothing of it was done.
    pub const ERESTARTNOINTR: Errno = Errno(513);
    /// Likewise, but a handler makes it `EINTR` whatever its flags are.
    pub const ERESTARTNOHAND: Errno = Errno(514);
    /// Likewise, and restarting is a call of its own: restart_syscall, which knows how much time
    /// is left.
    pub const ERESTART_RESTARTBLOCK: Errno = Errno(516);
    /// The peer of a message died before it answered.
    pub const EDEADSRCDST: Errno = Errno(600);

    /// A terminal's driver to VFS: the caller is in the background and may not do this as it is
    /// (see [`crate::proto::pm::JobControl`]).
    pub const EBACKGROUND: Errno = Errno(601);

    /// The result word of a failure: the negated number.
    pub const fn to_word(self) -> u64 {
        (-(self.0 as i64)).cast_unsigned()
    }
}

impl core::fmt::Debug for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for Errno {}

/// Splits a result word into value and error: words in `-4095..0` are errors.
pub const fn result_from_word(word: u64) -> Result<u64, Errno> {
    match word.wrapping_neg() {
        number @ 1..=4095 => Err(Errno((number & 0xfff) as i32)),
        _ => Ok(word),
    }
}

/// The inverse of [`result_from_word`].
pub const fn result_to_word(result: Result<u64, Errno>) -> u64 {
    match result {
        Ok(word) => word,
        Err(errno) => errno.to_word(),
    }
}
