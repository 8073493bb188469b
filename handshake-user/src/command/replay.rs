//! `handshake replay`: runs a capture through the engine and writes the same reports as `watch`.

mod bar;
mod ladder;
pub(super) mod recorded;

use std::collections::BTreeMap;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use handshake_agent::Error as AgentError;
use handshake_agent::free::free_up_to;
use handshake_agent::model::flow::frames::FrameIndex;
use handshake_agent::model::flow::{self, Flow, Tunnels, View, verdict_of};
use handshake_agent::model::loss;
use handshake_agent::model::snapshot::{Beginning, CaptureOrigin, Interval, Origin, RunContext, Snapshot};
use handshake_agent::options;
use handshake_agent::session::{self, Signals};
use handshake_agent::source::replay::{Passed, Replay};
use handshake_agent::source::settings::Settings;
use handshake_capture::{CaptureLosses, CapturedPacket, Captures, Squeeze};
use handshake_common::abi::{Counter, Makers};
use handshake_common::interface::{GROUPS, point};
use handshake_common::table::record_of;
use handshake_common::verdict::Verdict;
use handshake_common::wire::tunnel::innermost;
use handshake_common::wire::{Class, Link, Packet, Slice, has_wrong_checksum, mark, note, parse};

use self::bar::Bar;
use self::ladder::{Ladders, Observed};
use crate::cli::ReplayArgs;
use crate::command::{names, out, usual_confinement, warn_of_variables, zone};
use crate::console::say;
use crate::error::CommandError;
use crate::helper::{Duties, FileDuty, Helper};
use crate::names::Names;
use crate::output::{Lane, Output, Target};
use crate::report::text::{self, Style};
use crate::report::{self, OutputFormat};
use crate::time::Zone;
use crate::tui::{self, Past, PastCapture, ScreenOptions};
use handshake_export::events::{Event, EventLog};
use handshake_record::is_recording;

/// The longest that the report waits for names: a capture may be read before any server has answered.
const FOR_NAMES: Duration = Duration::from_secs(1);

/// Runs `handshake replay` and returns its exit code.
///
/// # Errors
///
/// A file that is missing, unreadable or not a capture, or none of whose packets can be read; failures to
/// write the report.
pub(crate) fn run(args: &ReplayArgs) -> Result<u8, CommandError> {
    if args.tui && !tui::is_available() {
        return Err(CommandError::NoTerminal);
    }
    if let [path] = args.files.as_slice()
        && is_recording(path)
    {
        return recorded::run(args, path);
    }
    if args.at.is_some() {
        return Err(CommandError::NoRecording("--at is for the folder of a recording".to_owned()));
    }
    // It is another process: before any thread.
    let duties = Duties { files: vec![FileDuty::New], ..Duties::default() };
    let helper = args.tui.then(|| Helper::start(duties)).transpose();
    let helper = helper.map_err(AgentError::system("start the helper process"))?;
    warn_of_variables();
    let zone = zone(args.output.utc);
    let confinement = usual_confinement();
    let names = names(args.output.wants_names(), Some(confinement))?;
    let mut captures = Captures::open(&args.files)?;
    let wanted = args.output.flows || args.output.events.0.is_any() || args.ladder.is_some() || args.tui;
    let fixed = args.max_flows.is_some();
    let max_flows = args.max_flows.unwrap_or(1);
    let settings = Settings {
        rules: (&args.rules).into(),
        filter: (&args.filter).into(),
        max_flows,
        ..Settings::default()
    };
    let room = free_up_to(args.max_memory);
    let replay = Replay::new(&settings, fixed, wanted, room)?;
    let mut run = ReplayRun {
        args,
        replay,
        context: None,
        named: 0,
        squeeze: args.squeeze.map(|limit| Squeeze::new(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX))),
        evicted: Vec::new(),
        frames: wanted.then(FrameIndex::default),
        ladders: args.ladder.map(Ladders::of),
        past: args.tui.then(Past::default),
        cut_headers: 0,
        not_ip: BTreeMap::new(),
        tunnels: args.tunnels.then(Tunnels::default),
        losses: LossTimes::new(),
        reports: args.interval.map(Reports::every),
        out: Output::to(Target::stdout()),
        log: EventLog::endless(args.output.events.0),
        looks: Looks::default(),
        style: Style::of(&std::io::stdout(), zone).naming(names),
        zone,
        names,
    };
    let read = run.play(&mut captures);
    if let Some(error) = captures.nothing_read().filter(|_| read.is_ok()) {
        return Err(error.into());
    }
    captures.warnings().iter().for_each(|warning| say(warning));
    read?;
    if let Some(helper) = helper {
        run.explore(&captures, &helper)?;
    }
    run.finish(&captures)?;
    Ok(0)
}

/// The reports at their interval, of the capture's time.
struct Reports {
    every_ns: u64,
    /// The time of the next.
    next_ns: Option<u64>,
    latest: Option<Snapshot>,
}

impl Reports {
    fn every(interval: Duration) -> Self {
        let every_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Self { every_ns, next_ns: None, latest: None }
    }

    /// Is a report due before a packet of this time? The first packet begins the first interval.
    fn are_due(&mut self, time_ns: u64) -> bool {
        let next_ns = *self.next_ns.get_or_insert_with(|| time_ns.saturating_add(self.every_ns));
        if time_ns < next_ns {
            return false;
        }
        let passed = (time_ns - next_ns) / self.every_ns + 1;
        self.next_ns = Some(next_ns.saturating_add(passed.saturating_mul(self.every_ns)));
        true
    }
}

/// When the tables are looked at for attempts that become half-open or expire: after a second of the
/// capture's time, and where they are large after as many packets as take as long as the look, or ten
/// seconds.
#[derive(Default)]
struct Looks {
    last_ns: Option<u64>,
    packets: usize,
}

impl Looks {
    const EVERY_NS: u64 = 1_000_000_000;
    const AT_LEAST_EVERY_NS: u64 = 10 * Self::EVERY_NS;
    /// Slots that are looked at in the time of a packet.
    const SLOTS_A_PACKET: usize = 64;

    /// Is a look due before a packet of this time?
    fn are_due(&mut self, time_ns: u64, slots: usize) -> bool {
        self.packets += 1;
        let passed_ns = time_ns.saturating_sub(*self.last_ns.get_or_insert(time_ns));
        let is_due = passed_ns >= Self::EVERY_NS
            && (self.packets >= slots / Self::SLOTS_A_PACKET || passed_ns >= Self::AT_LEAST_EVERY_NS);
        if is_due {
            *self = Self { last_ns: Some(time_ns), packets: 0 };
        }
        is_due
    }
}

/// A replay in progress.
struct ReplayRun<'a> {
    args: &'a ReplayArgs,
    replay: Replay,
    /// Set from the first packet on: its time is the report's beginning.
    context: Option<Arc<RunContext>>,
    /// Interfaces whose names are known.
    named: u32,
    /// Shortens pauses, for `--squeeze`.
    squeeze: Option<Squeeze>,
    /// Flows whose records were evicted, for `--flows`.
    evicted: Vec<Flow>,
    /// Where the flows' packets are, if flows are written.
    frames: Option<FrameIndex>,
    /// The handshakes of `--ladder`.
    ladders: Option<Ladders>,
    /// What the screens show of it, for `--tui`.
    past: Option<Past>,
    /// Packets whose headers are cut by the snap length.
    cut_headers: u64,
    /// Packets that are not IP, by EtherType.
    not_ip: BTreeMap<Option<u16>, u64>,
    /// The tunnels around flows, with `--tunnels`.
    tunnels: Option<Tunnels>,
    losses: LossTimes,
    reports: Option<Reports>,
    out: Output<Target>,
    /// What was told of single attempts, for `--events`.
    log: EventLog,
    looks: Looks,
    style: Style,
    zone: Zone,
    names: Names,
}

impl ReplayRun<'_> {
    fn play(&mut self, captures: &mut Captures) -> Result<(), CommandError> {
        let mut bar = Bar::start(self.args);
        loop {
            self.note_losses(captures.losses());
            bar.show(captures);
            let Some(time_ns) = captures.next_time()? else { break };
            let time_ns = self.squeeze.as_mut().map_or(time_ns, |squeeze| squeeze.map(time_ns));
            if self.args.output.events.0.is_any() && self.looks.are_due(time_ns, self.replay.size()) {
                self.show_aged(time_ns)?;
            }
            if self.reports.as_mut().is_some_and(|reports| reports.are_due(time_ns)) {
                self.report_so_far(captures)?;
            }
            // Borrowed where it lies: code for size would copy each packet twice.
            match captures.next_packet() {
                Ok(Some(ref captured)) => self.observe(captured, time_ns)?,
                Ok(None) => break,
                Err(error) => return Err(error.into()),
            }
            if self.out.is_closed() {
                break;
            }
            self.show_passed()?;
        }
        self.note_losses(captures.losses());
        if self.args.output.events.0.is_any() {
            self.show_aged(0)?;
        }
        self.replay.stop();
        Ok(())
    }

    /// Notes what is lost up to this packet.
    fn note_losses(&mut self, lost: CaptureLosses) {
        let Self { replay, cut_headers, losses, .. } = self;
        losses.note(replay.moment().now.ns, |counted| match counted {
            Counted::Engine(counter) => replay.counter(counter),
            Counted::CutHeaders => *cut_headers,
            Counted::Skipped => lost.skipped,
            Counted::Dropped => lost.dropped,
            Counted::Damaged => lost.damaged,
            Counted::Truncated => lost.truncated,
        });
    }

    /// Writes the report of an interval that has passed.
    fn report_so_far(&mut self, captures: &Captures) -> Result<(), CommandError> {
        let (Some(context), Some(reports)) = (&mut self.context, &mut self.reports) else { return Ok(()) };
        describe(context, captures, (self.cut_headers, &self.not_ip), &self.losses);
        let snapshot = Snapshot::take(&mut self.replay, context, reports.latest.as_ref())?;
        let (format, style) = (self.args.output.format, self.style);
        if format != OutputFormat::Json {
            let interval = reports.latest.as_ref().map(|before| Interval::between(before, &snapshot));
            self.out
                .put(|to| report::write_report(to, format, &snapshot, interval.as_ref(), style))
                .map_err(out)?;
        }
        reports.latest = Some(snapshot);
        Ok(())
    }

    fn observe(&mut self, captured: &CapturedPacket<'_>, time_ns: u64) -> Result<(), CommandError> {
        let number = interface(captured.interface);
        let args = self.args;
        if self.context.is_none()
            && let Some(past) = &mut self.past
        {
            let nothing = Snapshot::take(&mut self.replay, &context_from(args, time_ns), None)?;
            past.begin(nothing, time_ns);
        }
        let context = self.context.get_or_insert_with(|| context_from(args, time_ns));
        // Interfaces are numbered by their first packets.
        if captured.interface >= self.named {
            self.named = captured.interface + 1;
            name_interface(context, captured.interface, captured.interface_name);
        }
        let outer = Slice { bytes: captured.bytes, length: captured.length };
        let (frame, link, mut packet) = self.judged(outer, captured.link)?;
        packet.point = point(number, false);
        if captured.is_untimed {
            packet.marks |= mark::UNTIMED;
        }
        if self.args.rules.verify_checksums && packet.has_checksum() && has_wrong_checksum(&frame, link) {
            packet.note = note::BAD_CHECKSUM;
        }
        if packet.class == Class::NonIp as u8 {
            *self.not_ip.entry(captured.ether_type()).or_default() += 1;
        }
        let is_cut = captured.bytes.len() < captured.length as usize;
        self.cut_headers += u64::from(is_cut && packet.class == Class::Truncated as u8);
        let Some(ladders) = &self.ladders else {
            self.replay.observe(time_ns, &packet)?;
            return self.note_frame(&packet, captured);
        };
        if ladders.want(&packet) {
            self.observe_rung(&packet, captured, time_ns)
        } else {
            Ok(self.replay.observe(time_ns, &packet)?)
        }
    }

    /// Observes a packet of a handshake that `--ladder` asks for.
    fn observe_rung(
        &mut self,
        packet: &Packet,
        captured: &CapturedPacket<'_>,
        time_ns: u64,
    ) -> Result<(), CommandError> {
        let before = self.replay.record_of(packet);
        let copies = self.replay.counter(Counter::Copies);
        self.replay.observe(time_ns, packet)?;
        let is_copy = self.replay.counter(Counter::Copies) != copies;
        let (Some(after), Some(ladders)) = (self.replay.record_of(packet), &mut self.ladders) else {
            return Ok(());
        };
        let is_drawn = ladders.note(&Observed { packet, captured, before, after, is_copy });
        if is_drawn { self.note_frame(packet, captured) } else { Ok(()) }
    }

    /// Notes where the packet is, for the flow that it belongs to.
    fn note_frame(&mut self, packet: &Packet, captured: &CapturedPacket<'_>) -> Result<(), CommandError> {
        let Some(frames) = &mut self.frames else { return Ok(()) };
        let Some(record) = self.replay.record_of(packet) else { return Ok(()) };
        let before = frames.bytes();
        frames.note(&record, packet.class, captured.file, captured.number);
        let bytes = frames.bytes();
        if bytes > before { self.require(bytes) } else { Ok(()) }
    }

    /// Checks that there is memory for `more` bytes beside the tables and the evicted flows.
    fn require(&mut self, more: u64) -> Result<(), CommandError> {
        Ok(self.replay.require_beside((self.evicted.capacity() * size_of::<Flow>()) as u64 + more)?)
    }

    /// The packet to judge, and its frame: with `--tunnels` that inside a tunnel.
    fn judged<'b>(
        &mut self,
        frame: Slice<'b>,
        link: Link,
    ) -> Result<(Slice<'b>, Link, Packet), CommandError> {
        let Some(tunnels) = &mut self.tunnels else { return Ok((frame, link, parse(&frame, link))) };
        let Some(inner) = innermost(frame, link) else { return Ok((frame, link, parse(&frame, link))) };
        let growth = tunnels.next_growth();
        if growth > 0 {
            self.replay.require_beside(growth)?;
        }
        tunnels.note(&inner);
        Ok((inner.frame, inner.link, inner.packet))
    }

    /// Writes the attempts that ended, for `--events`, and keeps the evicted flows, for `--flows`.
    fn show_passed(&mut self) -> Result<(), CommandError> {
        if !self.replay.has_passed() {
            return Ok(());
        }
        let Some(context) = self.context.clone() else { return Ok(()) };
        for passed in self.replay.take_passed() {
            let moment = self.replay.moment();
            let view = View::at(&context, moment, moment.now.ns)
                .comparing(self.args.compat)
                .entering(self.tunnels.as_ref())
                .with_frames(self.frames.as_ref());
            match passed {
                Passed::Ended(event) => {
                    let Some(verdict) = verdict_of(&event) else { continue };
                    let flow = Flow::ended(record_of(&event, Makers::default()), verdict, event.ended_ns);
                    if let Some(past) = &mut self.past {
                        past.end(flow);
                    }
                    if let Some(event) = self.log.end(&flow, &moment) {
                        let (format, style) = (self.args.output.format, self.style);
                        self.out
                            .put(|to| report::write_event(to, format, &view, &event, style))
                            .map_err(out)?;
                    }
                }
                Passed::Displaced(record, verdict) => {
                    let verdict = verdict.and_then(|gauge| Verdict::of_gauge(gauge as usize));
                    self.pass(Flow::evicted(record, verdict, &moment))?;
                }
            }
        }
        Ok(())
    }

    /// Writes the attempts that have become half-open or expired up to `time_ns`, or else to the latest
    /// packet.
    fn show_aged(&mut self, time_ns: u64) -> Result<(), CommandError> {
        let Some(context) = &self.context else { return Ok(()) };
        let mut found: Vec<Event> = Vec::new();
        let log = &mut self.log;
        let moment = self.replay.for_each_open(time_ns, &mut |record, moment| {
            found.extend(log.meet(record, moment).into_iter().flatten());
        });
        // Nothing is left out.
        log.looked(&moment);
        found.sort_by_key(|event| event.at_ns);
        let view = View::at(context, moment, moment.now.ns)
            .comparing(self.args.compat)
            .entering(self.tunnels.as_ref())
            .with_frames(self.frames.as_ref());
        let (format, style) = (self.args.output.format, self.style);
        let write = |to: &mut dyn Write| {
            found.iter().try_for_each(|event| report::write_event(to, format, &view, event, style))
        };
        if found.is_empty() { Ok(()) } else { self.out.put(write).map_err(out) }
    }

    /// Keeps a flow whose record was evicted, if flows are listed.
    fn pass(&mut self, evicted: Flow) -> Result<(), CommandError> {
        let Some(frames) = &mut self.frames else { return Ok(()) };
        if let Some(ladders) = &mut self.ladders {
            if !ladders.end(&evicted) {
                frames.forget(&evicted);
            }
            return Ok(());
        }
        if !self.args.output.flows && self.past.is_none() {
            frames.forget(&evicted);
            return Ok(());
        }
        let bytes = frames.bytes();
        if self.evicted.len() == self.evicted.capacity() {
            self.require((self.evicted.len() * size_of::<Flow>()) as u64 + bytes)?;
        }
        self.evicted.push(evicted);
        Ok(())
    }

    /// All flows, the oldest first. Sorting takes half as much memory again.
    fn flows(&mut self, view: &View<'_>) -> Result<Vec<Flow>, CommandError> {
        let bytes = (self.evicted.len() + self.replay.records()) * size_of::<Flow>();
        let frames = self.frames.as_ref().map_or(0, FrameIndex::bytes);
        self.replay.require_beside((bytes * 3 / 2) as u64 + frames)?;
        let mut flows = std::mem::take(&mut self.evicted);
        flows.extend(view.flows(&self.replay));
        flow::sort(&mut flows);
        Ok(flows)
    }

    /// Shows the four screens, for `--tui`.
    fn explore(&mut self, captures: &Captures, helper: &Helper) -> Result<(), CommandError> {
        let mut context = self.context.clone().unwrap_or_else(|| context_from(self.args, 0));
        describe(&mut context, captures, (self.cut_headers, &self.not_ip), &self.losses);
        Arc::make_mut(&mut context).top = tui::ALL_SERVICES;
        let past = self.past.take().unwrap_or_default();
        let frames = Rc::new(self.frames.take().unwrap_or_default());
        let capture = PastCapture {
            source: &mut self.replay,
            context,
            evicted: &self.evicted,
            frames: Rc::clone(&frames),
        };
        let lane = Lane::to(Target::stdout()).map_err(out)?;
        let files = helper.files().map_err(out)?;
        let (ascii, zone, names) = (self.args.ascii, self.zone, self.names);
        let options = ScreenOptions { interval: Duration::ZERO, ascii, zone, names, until: None };
        session::block_on(async {
            let mut signals = Signals::new()?;
            tui::explore(options, &lane, files, past, capture, &mut signals).await?;
            signals.release().await;
            Ok::<(), CommandError>(())
        })?;
        self.frames = Rc::into_inner(frames);
        Ok(())
    }

    fn finish(&mut self, captures: &Captures) -> Result<(), CommandError> {
        let mut context = self.context.take().unwrap_or_else(|| context_from(self.args, 0));
        describe(&mut context, captures, (self.cut_headers, &self.not_ip), &self.losses);
        if self.cut_headers > 0 {
            let cut = self.cut_headers;
            say(&format!(
                "packets whose headers are cut by the snap length: {cut}; capture more of each (tcpdump -s)"
            ));
        }
        let snapshot = Snapshot::take(&mut self.replay, &context, None)?;
        let tunnels = self.tunnels.take();
        let view = View::of(&snapshot).comparing(self.args.compat).entering(tunnels.as_ref());
        let listed = if self.args.output.flows { Some(self.flows(&view)?) } else { None };
        let view = view.with_frames(self.frames.as_ref());
        let (format, style, names) = (self.args.output.format, self.style, self.names);
        let flows = listed.as_deref().map(|flows| (view, flows));
        let (ladders, replay) = (self.ladders.as_ref(), &self.replay);
        let write = |to: &mut dyn Write| match ladders {
            Some(ladders) => {
                to.write_all(text::draw_head(&snapshot, None, style).as_bytes())?;
                to.write_all(ladders.draw(&view, replay, style).as_bytes())
            }
            None => report::write_closing(to, format, &snapshot, flows, style),
        };
        if names.are_wanted() {
            // Drawing asks for the names.
            write(&mut std::io::sink()).map_err(out)?;
            names.wait(FOR_NAMES);
        }
        self.out.put(write).map_err(out)
    }
}

fn context_from(args: &ReplayArgs, from_ns: u64) -> Arc<RunContext> {
    let paths: Vec<String> = args.files.iter().map(|path| path.display().to_string()).collect();
    let path = paths.join(", ");
    Arc::new(RunContext {
        origin: Origin::Capture(CaptureOrigin { path, ..CaptureOrigin::default() }),
        began: Beginning { wall_ns: from_ns, ns: from_ns },
        filter: options::Filter::from(&args.filter),
        top: args.output.top,
        owners: handshake_agent::owner::OwnerBook::default(),
    })
}

/// Puts what is known of the captures into the context of a report.
fn describe(
    context: &mut Arc<RunContext>,
    captures: &Captures,
    (cut_headers, not_ip): (u64, &BTreeMap<Option<u16>, u64>),
    losses: &LossTimes,
) {
    if let Origin::Capture(capture) = &mut Arc::make_mut(context).origin {
        (capture.condition, capture.cut_headers) = (captures.condition(), cut_headers);
        let files: Vec<String> = captures.paths().map(|path| path.display().to_string()).collect();
        capture.files = if files.len() > 1 { files } else { Vec::new() };
        capture.not_ip.clone_from(not_ip);
        capture.found_ns = losses.found().collect();
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
    let is_shared = number as usize > LAST_INTERFACE;
    if is_shared && capture.interfaces.last().is_none_or(Option::is_none) {
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
