//! `handshake diff`: compares two reports that were written as JSON, or two moments of a recording, and judges expectations of them. The
//! exit code is the answer.

use std::io;
use std::path::{Path, PathBuf};

use crate::check::{CheckError, Comparison, Gate, Judged, Reason, SavedReport, Scope, counted, exit_code};
use crate::cli::DiffArgs;
use crate::command::replay::recorded::Opened;
use crate::command::{github, out, warn_of_variables, zone};
use crate::console;
use crate::error::CommandError;
use crate::file::FileAtEnd;
use crate::output::{Lane, Patience, Target};
use crate::report::gate::{GateCase, GateResult};
use crate::report::text::{self, Style};
use crate::report::{self, OutputFormat, diff};
use crate::time::Zone;
use handshake_record::is_recording;

/// Runs `handshake diff` and returns its exit code.
///
/// # Errors
///
/// Faults of the expectations; a file that is no report; failures to write.
pub(crate) fn run(args: &DiffArgs) -> Result<u8, CommandError> {
    let gate = Gate::of(&args.expectations, &args.expect_files, Scope::TwoReports)?;
    let unwritable = |path: &Path| {
        let path = path.display().to_string();
        move |source| CommandError::ReportFile { option: "--junit", path, source }
    };
    let junit = args.junit.as_deref().map(|path| FileAtEnd::prepare(path).map_err(unwritable(path)));
    let junit = junit.transpose()?;
    let zone = zone(false);
    let comparison = Comparison { old: read(&args.old, zone)?, new: read(&args.new, zone)? };
    warn_of_variables();
    let mut judged: Vec<Judged<'_>> =
        gate.expectations.iter().map(|each| Judged::by(&comparison, each)).collect();
    let allows_nothing = args.allow_nothing || gate.allow_nothing || judged.iter().any(Judged::wants_nothing);
    if let Some(path) = comparison.empty().filter(|_| !allows_nothing) {
        judged.iter_mut().for_each(|each| each.doubt(Reason::NothingIn(path.to_owned())));
    }
    let code = exit_code(&judged);
    let verdict = counted(&judged).map(|counted| format!("{counted} (exit {code})"));
    let result = GateResult {
        name: "handshake diff",
        verdict: verdict.clone().unwrap_or_default(),
        began_ns: comparison.new.time_ns("from").unwrap_or(0),
        took_ns: comparison.new.length_ns(),
        cases: judged.iter().map(|each| GateCase::of(each, &comparison)).collect(),
    };
    github::annotate(&result);
    if let Some(file) = junit {
        let write = file.write(result.junit().into_bytes(), Patience::Endless);
        let path = args.junit.as_deref().unwrap_or(Path::new("")).display().to_string();
        write.map_err(CommandError::output(format!("write --junit {path}")))?;
    }
    if verdict.is_some() {
        github::summarize(&result);
    }
    console::flush();
    let expectations =
        |style: Style| text::draw_all_judged(&judged, &comparison, verdict.clone(), code, style);
    let changes = diff::changes(&comparison);
    let write = |target, content: Vec<u8>| -> Result<(), CommandError> {
        let lane = Lane::to(target).map_err(out)?;
        lane.finish(Patience::Endless, |to| to.write_all(&content)).map_err(out)
    };
    match args.format {
        OutputFormat::Text => {
            let style = Style::of(&io::stdout(), Zone::Utc);
            let shown = diff::draw(&comparison, &changes, style) + &expectations(style);
            write(Target::stdout(), shown.into_bytes())?;
        }
        OutputFormat::Json | OutputFormat::Jsonl => {
            let mut content = Vec::new();
            report::json::write_diff(&mut content, &comparison, &changes, &judged).map_err(out)?;
            write(Target::stdout(), content)?;
            write(Target::stderr(), expectations(Style::of(&io::stderr(), Zone::Utc)).into_bytes())?;
        }
    }
    Ok(code)
}

/// A report that was written, or that of a moment of a recording.
fn read(path: &Path, zone: Zone) -> Result<SavedReport, CommandError> {
    let error = |source| CheckError::Saved { path: path.display().to_string(), source };
    match moment(path) {
        Some((folder, when)) => {
            let opened = Opened::at(&folder)?;
            let when = when.map(|when| when.parse()).transpose();
            let when = when.map_err(|wrong| error(io::Error::other::<String>(wrong)))?;
            let (recorded, _) = opened.moment(opened.number(when, zone)?)?;
            let mut report = Vec::new();
            report::json::write_report(&mut report, &recorded.listing(usize::MAX).snapshot()?, None)
                .map_err(out)?;
            Ok(SavedReport::last_of(report.as_slice(), path.display().to_string()).map_err(error)?)
        }
        None => Ok(SavedReport::read(path).map_err(error)?),
    }
}

/// The folder of a recording and a time in it, of DIR@TIME; of DIR alone there is no time.
fn moment(path: &Path) -> Option<(PathBuf, Option<String>)> {
    if path.exists() {
        return is_recording(path).then(|| (path.to_owned(), None));
    }
    let (folder, when) = path.to_str()?.rsplit_once('@')?;
    is_recording(Path::new(folder)).then(|| (folder.into(), Some(when.to_owned())))
}
