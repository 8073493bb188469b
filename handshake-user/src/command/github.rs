//! What a gate tells GitHub Actions, where it runs in a job: an annotation for each expectation that was not
//! met, and a table in the summary of the step.

use std::env;
use std::path::PathBuf;

use crate::console::{announce, flush, say};
use crate::file::FileAtEnd;
use crate::output::Patience;
use crate::report::gate::GateResult;

/// The variable that is `true` in a job.
const ACTIONS: &str = "GITHUB_ACTIONS";
/// The variable that names the file of the step's summary.
pub(super) const SUMMARY: &str = "GITHUB_STEP_SUMMARY";

fn is_there() -> bool {
    env::var_os(ACTIONS).is_some_and(|value| value == "true")
}

/// The file of the step's summary.
pub(super) fn summary() -> Option<PathBuf> {
    env::var_os(SUMMARY).filter(|path| is_there() && !path.is_empty()).map(PathBuf::from)
}

/// Appends to the summary of the step. That it cannot be written is told, and no more: it is not the result.
pub(super) fn summarize(result: &GateResult) {
    let Some(path) = summary() else { return };
    let written = FileAtEnd::append(&path)
        .and_then(|file| file.write(result.summary().into_bytes(), Patience::Endless));
    if let Err(error) = written {
        say(&format!("no summary: {SUMMARY} {}: {error}", path.display()));
    }
}

/// Prints the annotations on stderr, which GitHub reads as it reads stdout.
pub(super) fn annotate(result: &GateResult) {
    if is_there() {
        result.annotations().iter().for_each(|line| announce(line));
        flush();
    }
}
