//! What is wrong with a configuration.

/// A fault in the file, with its line.
#[derive(Debug, thiserror::Error)]
#[error("{path}, line {line}: {problem}")]
pub(crate) struct ConfigFault {
    /// The file.
    pub(crate) path: String,
    /// The line.
    pub(crate) line: usize,
    /// What is wrong there.
    pub(crate) problem: String,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("--config {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file has a fault.
    #[error(transparent)]
    Fault(#[from] ConfigFault),
    /// What the file and the options say together.
    #[error("{path}: {problem}")]
    Together {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}
