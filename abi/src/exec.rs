//! How a program's file gets into its process: the switch that shows what mapping is good for.
//! Chosen while the system runs, by `/proc/absentia/exec-backend`.

use crate::Word;

/// What VFS does with the parts of a file that an exec needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum ExecBackend {
    /// Pages of the file are mapped, and come in when they are used.
    #[default]
    Map,
    /// The file system copies each segment straight into the process.
    Copy,
    /// The world before: text takes the way through a buffer of VFS, piece by piece.
    Buffer,
}

impl ExecBackend {
    /// All of them.
    pub const ALL: [ExecBackend; 3] = [ExecBackend::Map, ExecBackend::Copy, ExecBackend::Buffer];

    /// Its name, as `/proc/absentia/exec-backend` has it.
    pub const fn name(self) -> &'static str {
        match self {
            ExecBackend::Map => "map",
            ExecBackend::Copy => "copy",
            ExecBackend::Buffer => "buffer",
        }
    }

    /// The backend of this name.
    pub fn named(name: &[u8]) -> Option<ExecBackend> {
        ExecBackend::ALL
            .into_iter()
            .find(|backend| backend.name().as_bytes() == name)
    }
}

impl Word for ExecBackend {
    fn to_word(self) -> u64 {
        self as u64
    }
    fn from_word(word: u64) -> Option<Self> {
        ExecBackend::ALL
            .into_iter()
            .find(|backend| backend.to_word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_words_name_one_backend() {
        for backend in ExecBackend::ALL {
            assert_eq!(ExecBackend::named(backend.name().as_bytes()), Some(backend));
            assert_eq!(ExecBackend::from_word(backend.to_word()), Some(backend));
        }
        assert_eq!(ExecBackend::named(b"maps"), None);
        assert_eq!(ExecBackend::from_word(3), None);
    }
}
