//! `handshake replay`: runs a capture through the engine and writes the same reports as `watch`.

use std::sync::Arc;

use handshake_agent::model::flow::{self, Flow, View, verdict_of};
use handshake_agent::model::loss;
use handshake_agent::model::snapshot::{Beginning, CaptureOrigin, Origin, RunContext, Snapshot};
use handshake_agent::options;
use handshake_agent::source::replay::{Passed, Replay};
use handshake_agent::source::settings::Settings;
use handshake_capture::{Capture, CapturedPacket, Condition, Squeeze};
use handshake_common::abi::Counter;
use handshake_common::interface::{GROUPS, point};
use handshake_common::table::record_of;
use handshake_common::verdict::Verdict;
use handshake_common::wire::{Class, Slice, has_wrong_checksum, mark, note, parse};

use crate::cli::ReplayArgs;
use crate::command::out;
use crate::console::say;
use crate::error::CommandError;
use crate::output::{Output, Target};
use crate::report;
use crate::report::text::Style;

/// Runs `handshake replay` and returns its exit code.
///
/// # Errors
///
/// A file that is missing, unreadable or not a capture, or none of whose packets can be read; failures to
/// write the report.
pub(crate) fn run(args: &ReplayArgs) -> Result<u8, CommandError> {
    let mut capture = Capture::open(&args.file)?;
    let wanted = args.output.flows || args.output.events;
    let fixed = args.max_flows.is_some();
    let max_flows = args.max_flows.unwrap_or(1);
    let settings = Settings {
        rules: (&args.rules).into(),
        filter: (&args.filter).into(),
        max_flows,
        ..Settings::default()
    };
    let replay = Replay::new(&settings, fixed, wanted)?;
    let mut run = ReplayRun {
        args,
        replay,
        context: None,
        squeeze: args.squeeze.map(|limit| Squeeze::new(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX))),
        evicted: Vec::new(),
        cut_headers: 0,
        observed: 0,
        losses: LossTimes::new(),
        out: Output::to(Target::stdout()),
        style: Style::of(&std::io::stdout()),
    };
    let read = run.play(&mut capture);
    if let Some(error) = capture.nothing_read().filter(|_| read.is_ok()) {
        return Err(error.into());
    }
    capture.warnings().iter().for_each(|warning| say(&warning.to_string()));
    read?;
    run.finish(capture.condition())?;
    Ok(0)
}

/// A replay in progress.
struct ReplayRun<'a> {
    args: &'a ReplayArgs,
    replay: Replay,
    /// Set from the first packet on: its time is the report's beginning.
    context: Option<Arc<RunContext>>,
    /// Shortens pauses, for `--squeeze`.
    squeeze: Option<Squeeze>,
    /// Flows whose records were evicted, for `--flows`.
    evicted: Vec<Flow>,
    /// Packets whose headers are cut by the snap length.
    cut_headers: u64,
    /// Packets that could be read.
    observed: u64,
    losses: LossTimes,
    out: Output<Target>,
    style: Style,
}

impl ReplayRun<'_> {
    fn play(&mut self, capture: &mut Capture) -> Result<(), CommandError> {
        while let Some(captured) = capture.next_packet()? {
            self.observe(&captured);
            self.note_losses(capture);
            if self.out.is_closed() {
                break;
            }
            self.show_passed()?;
        }
        self.note_losses(capture);
        self.replay.stop();
        Ok(())
    }

    /// Notes what is lost up to this packet.
    fn note_losses(&mut self, capture: &Capture) {
        let Self { replay, cut_headers, observed, losses, .. } = self;
        losses.note(replay.moment().now.ns, |counted| match counted {
            Counted::Engine(counter) => replay.counter(counter),
            Counted::CutHeaders => *cut_headers,
            Counted::Skipped => capture.packets().saturating_sub(*observed),
            Counted::Dropped => capture.dropped().unwrap_or(0),
            Counted::Damaged => capture.is_damaged().into(),
            Counted::Truncated => capture.is_truncated().into(),
        });
    }

    fn observe(&mut self, captured: &CapturedPacket<'_>) {
        self.observed += 1;
        let time_ns = match &mut self.squeeze {
            Some(squeeze) => squeeze.map(captured.time_ns),
            None => captured.time_ns,
        };
        let number = interface(captured.interface);
        let mut context = self.context.take().unwrap_or_else(|| self.context_from(time_ns));
        name_interface(&mut context, captured.interface, captured.interface_name);
        self.context = Some(context);
        let frame = Slice { bytes: captured.bytes, length: captured.length };
        let mut packet = parse(&frame, captured.link);
        packet.point = point(number, false);
        if captured.is_untimed {
            packet.marks |= mark::UNTIMED;
        }
        if self.args.rules.verify_checksums
            && packet.has_checksum()
            && has_wrong_checksum(&frame, captured.link)
        {
            packet.note = note::BAD_CHECKSUM;
        }
        let is_cut = captured.bytes.len() < captured.length as usize;
        self.cut_headers += u64::from(is_cut && packet.class == Class::Truncated as u8);
        self.replay.observe(time_ns, &packet);
    }

    fn context_from(&self, from_ns: u64) -> Arc<RunContext> {
        let path = self.args.file.display().to_string();
        Arc::new(RunContext {
            origin: Origin::Capture(CaptureOrigin { path, ..CaptureOrigin::default() }),
            began: Beginning { wall_ns: from_ns, ns: from_ns },
            filter: options::Filter::from(&self.args.filter),
            top: self.args.output.top,
        })
    }

    /// Writes the attempts that ended, for `--events`, and keeps the evicted flows, for `--flows`.
    fn show_passed(&mut self) -> Result<(), CommandError> {
        let Some(context) = self.context.clone() else { return Ok(()) };
        for passed in self.replay.take_passed() {
            let moment = self.replay.moment();
            let view = View::at(&context, moment, moment.now.ns).comparing(self.args.compat);
            match passed {
                Passed::Ended(event) if self.args.output.events => {
                    if let Some(verdict) = verdict_of(&event) {
                        let flow = Flow::ended(record_of(&event), verdict, event.ended_ns);
                        let (format, style) = (self.args.output.format, self.style);
                        self.out
                            .put(|to| report::write_flow(to, format, &view, &flow, style))
                            .map_err(out)?;
                    }
                }
                Passed::Displaced(record, verdict) if self.args.output.flows => {
                    self.evicted.push(Flow::evicted(
                        record,
                        verdict.and_then(|gauge| Verdict::of_gauge(gauge as usize)),
                        &moment,
                    ));
                }
                Passed::Ended(_) | Passed::Displaced(..) => {}
            }
        }
        Ok(())
    }

    fn finish(&mut self, condition: Condition) -> Result<(), CommandError> {
        let mut context = self.context.take().unwrap_or_else(|| self.context_from(0));
        if let Origin::Capture(capture) = &mut Arc::make_mut(&mut context).origin {
            (capture.condition, capture.cut_headers) = (condition, self.cut_headers);
            capture.found_ns = self.losses.found().collect();
        }
        if self.cut_headers > 0 {
            let cut = self.cut_headers;
            say(&format!(
                "packets whose headers are cut by the snap length: {cut}; capture more of each (tcpdump -s)"
            ));
        }
        let snapshot = Snapshot::take(&mut self.replay, &context, None)?;
        let view = View::of(&snapshot).comparing(self.args.compat);
        let listed = self.args.output.flows.then(|| {
            let mut flows = std::mem::take(&mut self.evicted);
            flows.extend(view.flows(&self.replay));
            flow::sort(&mut flows);
            flows
        });
        let flows = listed.as_deref().map(|flows| (view, flows));
        let format = self.args.output.format;
        let style = self.style;
        self.out.put(|to| report::write_closing(to, format, &snapshot, flows, style)).map_err(out)
    }
}

/// When each reason for an inexact report was first and last found.
struct LossTimes(Vec<LossTime>);

struct LossTime {
    reason: &'static str,
    counted: Counted,
    count: u64,
    found_ns: Option<(u64, u64)>,
}

/// What counts a loss.
#[derive(Clone, Copy)]
enum Counted {
    Engine(Counter),
    CutHeaders,
    Skipped,
    Dropped,
    Damaged,
    Truncated,
}

impl LossTimes {
    fn new() -> Self {
        let engine = loss::counted().map(|(reason, counter)| (reason, Counted::Engine(counter)));
        let of_capture = [
            ("cut_headers", Counted::CutHeaders),
            ("skipped_link_type", Counted::Skipped),
            ("capture_dropped", Counted::Dropped),
            ("capture_damaged", Counted::Damaged),
            ("capture_truncated", Counted::Truncated),
        ];
        let all = engine.chain(of_capture);
        Self(all.map(|(reason, counted)| LossTime { reason, counted, count: 0, found_ns: None }).collect())
    }

    /// Notes what has been counted up to this time.
    fn note(&mut self, now_ns: u64, count: impl Fn(Counted) -> u64) {
        for each in &mut self.0 {
            let count = count(each.counted);
            if count > each.count {
                each.count = count;
                each.found_ns = Some((each.found_ns.map_or(now_ns, |(first, _)| first), now_ns));
            }
        }
    }

    fn found(&self) -> impl Iterator<Item = (&'static str, (u64, u64))> {
        self.0.iter().filter_map(|each| Some((each.reason, each.found_ns?)))
    }
}

/// The last interface that records tell apart; its number stands for all further ones.
const LAST_INTERFACE: usize = GROUPS - 1;

/// Stores the name of an interface at its first packet. Where several share the last number, it has no name.
fn name_interface(context: &mut Arc<RunContext>, number: u32, name: Option<&str>) {
    let Origin::Capture(capture) = &context.origin else { return };
    // Interfaces are numbered by their first packets.
    let is_named = (number as usize) < capture.interfaces.len();
    let is_shared = number as usize > LAST_INTERFACE;
    if is_named || (is_shared && capture.interfaces.last().is_none_or(Option::is_none)) {
        return;
    }
    let Origin::Capture(capture) = &mut Arc::make_mut(context).origin else { return };
    let place = usize::from(interface(number));
    capture.interfaces.resize(place + 1, None);
    capture.interfaces[place] = name.filter(|_| !is_shared).map(str::to_owned);
}

/// The interface's number in a record. A capture may have more interfaces than records can tell apart.
fn interface(number: u32) -> u8 {
    let number = usize::try_from(number).map_or(LAST_INTERFACE, |number| number.min(LAST_INTERFACE));
    u8::try_from(number).unwrap_or_default()
}
