//! `handshake replay` of a recording: the four screens, or the report of a moment.

use std::io;
use std::path::Path;
use std::time::Duration;

use handshake_agent::Error as AgentError;
use handshake_agent::model::flow::{self, Flow, View};
use handshake_agent::options::Rules;
use handshake_agent::recording::{LeftOut, Recorded};
use handshake_agent::session::{self, Signals};

use crate::cli::ReplayArgs;
use crate::command::{names, out, usual_confinement, warn_of_variables, zone};
use crate::console::say;
use crate::error::CommandError;
use crate::helper::{Duties, FileDuty, Helper};
use crate::names::Names;
use crate::number::{group, span};
use crate::output::{Lane, Output, Target};
use crate::report::{self, text::Style};
use crate::time::{When, Zone};
use crate::tui::{self, ScreenOptions};
use handshake_record::Reel;

/// A recording that has been opened.
pub(crate) struct Opened {
    pub(crate) reel: Reel,
    path: String,
}

impl Opened {
    /// Opens the recording in a folder.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(crate) fn at(path: &Path) -> Result<Self, CommandError> {
        let shown = path.display().to_string();
        match Reel::open(path) {
            Ok(reel) => Ok(Self { reel, path: shown }),
            Err(source) => Err(CommandError::Recording { path: shown, source }),
        }
    }

    fn refused(&self, why: String) -> CommandError {
        CommandError::Recording { path: self.path.clone(), source: io::Error::other(why) }
    }

    /// The number of a moment: of the last without a time. Says so where nothing was recorded then, and it is the
    /// latest before.
    ///
    /// # Errors
    ///
    /// It was before the recording.
    pub(crate) fn number(&self, when: Option<When>, zone: Zone) -> Result<usize, CommandError> {
        let numbers = self.reel.numbers();
        let time = |number: usize| self.reel.time(number).map_or(0, |time| time.wall_ns);
        let Some(when) = when else { return Ok(numbers.end.saturating_sub(1)) };
        // The first and the last by the wall clock, which may have been set back.
        let walls = || numbers.clone().map(time);
        let [first, last] = [walls().min(), walls().max()].map(Option::unwrap_or_default);
        let wall_ns = when.wall_ns(zone, last);
        let found = wall_ns.and_then(|wall_ns| Some((wall_ns, self.reel.at(wall_ns)?)));
        let (wall_ns, number) =
            found.ok_or_else(|| self.refused(format!("it begins later, at {}", zone.dated(first))))?;
        if !self.reel.is_present(number, wall_ns) {
            let [wanted, before] = [wall_ns, time(number)].map(|ns| zone.dated(ns));
            say(&format!(
                "{}: nothing was recorded at {wanted}; the latest moment before is {before}",
                self.path
            ));
        }
        Ok(number)
    }

    /// What was at a moment, and which attempts had ended in it.
    ///
    /// # Errors
    ///
    /// It cannot be read, or makes no sense.
    pub(crate) fn moment(&self, number: usize) -> Result<(Recorded, Vec<Flow>), CommandError> {
        let mut found = None;
        let played = self.reel.play(number..=number, &mut |_, player| {
            found = player.moment().map(|moment| (moment, player.ended()));
        });
        played.map_err(|source| CommandError::Recording { path: self.path.clone(), source })?;
        found.ok_or_else(|| self.refused("this moment makes no sense".to_owned()))
    }

    /// From when to when it is, and what is missing: a sentence each.
    fn words(&self, zone: Zone) -> Vec<String> {
        let numbers = self.reel.numbers();
        let times: Vec<_> = numbers.clone().filter_map(|number| self.reel.time(number)).collect();
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Vec::new() };
        let ends = [first, last].map(|time| zone.dated(time.wall_ns));
        let gaps: Vec<_> = times.windows(2).filter(|pair| pair[1].gap_ns(pair[0]).is_some()).collect();
        let mut all =
            format!("recorded from {} to {}: {} moments", ends[0], ends[1], group(numbers.len() as u64));
        if let Some([one, next]) = gaps.last() {
            let [from, to] = [one, next].map(|time| zone.clock(time.wall_ns));
            all.push_str(&format!("; gaps: {}, the latest from {from} to {to}", gaps.len()));
        }
        let left = match self.reel.damaged() {
            Some(0) => None,
            Some(bytes) => Some(group(bytes)),
            None => Some("not known how many".to_owned()),
        };
        let left = left.map(|bytes| format!("bytes that make no sense, and are left out: {bytes}"));
        std::iter::once(all).chain(left).collect()
    }
}

/// Runs `handshake replay` over a recording, and returns its exit code.
///
/// # Errors
///
/// An option that is for captures; a recording that cannot be read; failures to write the report.
pub(super) fn run(args: &ReplayArgs, path: &Path) -> Result<u8, CommandError> {
    let opened = Opened::at(path)?;
    if let Some(option) = of_captures(args) {
        return Err(opened.refused(format!("it is a recording, and {option} is for captures")));
    }
    // It is another process: before any thread.
    let duties = Duties { files: vec![FileDuty::New], ..Duties::default() };
    let helper = args.tui.then(|| Helper::start(duties)).transpose();
    let helper = helper.map_err(AgentError::system("start the helper process"))?;
    warn_of_variables();
    let zone = zone(args.output.utc);
    let names = names(args.output.wants_names(), Some(usual_confinement()))?;
    let mut number = opened.number(args.at, zone)?;
    if let Some(helper) = helper {
        number = explore(args, &opened, number, &helper, (zone, names))?;
    }
    opened.words(zone).iter().for_each(|said| say(said));
    report(args, &opened, number, (zone, names))?;
    Ok(0)
}

/// An option that makes no sense for a recording.
fn of_captures(args: &ReplayArgs) -> Option<&'static str> {
    let given = [
        (args.interval.is_some(), "--interval"),
        (args.ladder.is_some(), "--ladder"),
        (args.max_flows.is_some(), "--max-flows"),
        (args.max_memory.is_some(), "--max-memory"),
        (args.squeeze.is_some(), "--squeeze"),
        (args.compat, "--compat"),
        (args.tunnels, "--tunnels"),
        (args.output.events.0.is_any(), "--events"),
        (!args.filter.ports.is_empty(), "--port"),
        (!args.filter.nets.is_empty(), "--net"),
        (Rules::from(&args.rules) != Rules::default(), "a rule such as --half-open-after"),
    ];
    given.into_iter().find(|(is_given, _)| *is_given).map(|(_, option)| option)
}

/// Shows the four screens; returns the moment that was shown last.
fn explore(
    args: &ReplayArgs,
    opened: &Opened,
    number: usize,
    helper: &Helper,
    (zone, names): (Zone, Names),
) -> Result<usize, CommandError> {
    let lane = Lane::to(Target::stdout()).map_err(out)?;
    let files = helper.files().map_err(out)?;
    let options = ScreenOptions { interval: Duration::ZERO, ascii: args.ascii, zone, names, until: None };
    session::block_on(async {
        let mut signals = Signals::new()?;
        let shown =
            tui::explore_recording(options, &lane, files, (&opened.reel, number), &mut signals).await?;
        signals.release().await;
        Ok::<usize, CommandError>(shown)
    })
}

/// Writes the report of a moment.
fn report(
    args: &ReplayArgs,
    opened: &Opened,
    number: usize,
    (zone, names): (Zone, Names),
) -> Result<(), CommandError> {
    let (recorded, ended) = opened.moment(number)?;
    let mut recorded = recorded.listing(args.output.top);
    let snapshot = recorded.snapshot()?;
    let view = View::of(&snapshot);
    let flows = args.output.flows.then(|| {
        let mut flows = view.flows(&recorded);
        flows.extend(ended);
        flow::sort(&mut flows);
        flows
    });
    let ago_ns = opened.reel.ago_ns(number);
    if ago_ns != 0 {
        say(&format!("the moment {} before its end", span(ago_ns)));
    }
    if flows.is_some() {
        say_left_out(recorded.left_out);
    }
    let style = Style::of(&io::stdout(), zone).naming(names);
    let flows = flows.as_deref().map(|flows| (view, flows));
    let format = args.output.format;
    let mut output = Output::to(Target::stdout());
    output.put(|to| report::write_closing(to, format, &snapshot, flows, style)).map_err(out)
}

/// A recording has single flows of this moment alone, and not all.
fn say_left_out(left_out: LeftOut) {
    say(
        "a recording has no completed connections but those that ended in this second, and the latest UDP flows",
    );
    let LeftOut { open, failed, ended } = left_out;
    if !left_out.is_nothing() {
        let [open, failed, ended] = [open, failed, ended].map(group);
        say(&format!(
            "left out for want of room: {open} open attempts, {failed} failed, {ended} other ended ones"
        ));
    }
}
