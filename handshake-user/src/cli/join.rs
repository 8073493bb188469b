//! Options of `handshake join`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use crate::number::bytes;
use crate::report::OutputFormat;

/// Options of `handshake join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The account of the client's side: what handshake wrote there as JSON; of a folder all files; - is
    /// standard input
    #[arg(value_name = "CLIENT")]
    pub(crate) client: PathBuf,
    /// The account of the server's side
    #[arg(value_name = "SERVER")]
    pub(crate) server: PathBuf,
    /// Another file of the first account, repeatable
    #[arg(long, value_name = "FILE", env = "HANDSHAKE_FIRST", hide_env = true)]
    pub(crate) first: Vec<PathBuf>,
    /// Another file of the second account, repeatable
    #[arg(long, value_name = "FILE", env = "HANDSHAKE_SECOND", hide_env = true)]
    pub(crate) second: Vec<PathBuf>,
    /// List the attempts, one by one
    #[arg(long, env = "HANDSHAKE_FLOWS", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) flows: bool,
    /// Memory to use at most, such as 512M or 2G [default: what is free]
    #[arg(long, value_name = "SIZE", value_parser = bytes, env = "HANDSHAKE_MAX_MEMORY", hide_env = true)]
    pub(crate) max_memory: Option<u64>,
    /// Show times in UTC instead of the local time zone; JSON is always in UTC
    #[arg(long, env = "HANDSHAKE_UTC", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) utc: bool,
    /// text for ladders, or json
    #[arg(short = 'o', long = "output", value_enum, default_value_t = OutputFormat::Text)]
    #[arg(value_name = "FORMAT", env = "HANDSHAKE_OUTPUT", hide_env = true)]
    pub(crate) format: OutputFormat,
}

impl JoinArgs {
    /// The files of both accounts.
    pub(crate) fn files(&self) -> [Vec<PathBuf>; 2] {
        [(&self.client, &self.first), (&self.server, &self.second)]
            .map(|(one, more)| std::iter::once(one).chain(more).cloned().collect())
    }
}
