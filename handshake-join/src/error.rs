//! Why two accounts cannot be joined. Each message is one line that names the file and the fix.

use std::io;
use std::path::Path;

/// Why two accounts cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A file cannot be read.
    #[error("cannot read {name}: {error}")]
    Unreadable {
        /// The file.
        name: String,
        /// The system's error.
        error: io::Error,
    },
    /// A pipe is named twice.
    #[error("{name} can be read once: name it for one account, once")]
    Twice {
        /// The pipe.
        name: String,
    },
    /// A folder without a file.
    #[error("no file in {name}; name a folder with files of events, or files")]
    EmptyFolder {
        /// The folder.
        name: String,
    },
    /// There is neither an attempt nor a report in it.
    #[error(
        "{name}: there is neither an attempt nor a report in it: handshake writes both with -o jsonl --events all --flows"
    )]
    Nothing {
        /// The file.
        name: String,
    },
    /// It is of another schema.
    #[error("{name}: it is of schema {schema}, and schema 1 is read")]
    Schema {
        /// The file.
        name: String,
        /// The schema.
        schema: u64,
    },
    /// Both accounts are of one place.
    #[error(
        "{0} and {1} are the same account: each attempt of both has the same times to the nanosecond, \
         so nothing lies between them"
    )]
    Same(String, String),
    /// The files need more memory than there is.
    #[error("joining takes up to {needed} of memory, and {free} are free {whose}: name fewer files")]
    TooLarge {
        /// What is needed.
        needed: String,
        /// What is free.
        free: String,
        /// Whose it is.
        whose: String,
    },
    /// There are more attempts than there is room for.
    #[error("more attempts than {bytes} bytes of memory hold: raise --max-memory, or name fewer files")]
    NoRoom {
        /// The room.
        bytes: u64,
    },
}

impl JoinError {
    pub(crate) fn unreadable(path: &Path, error: io::Error) -> Self {
        Self::Unreadable { name: path.display().to_string(), error }
    }

    /// Whether memory is what is missing.
    #[must_use]
    pub const fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::NoRoom { .. } | Self::TooLarge { .. })
    }
}
