//! Collects the packets of attempts that failed, for `--evidence`, and has the helper write them. A file system may
//! hang, so a thread waits for it, and nothing else.
//!
//! ```text
//! each second: what has failed, what the kernel side keeps ─▶ Evidence ─▶ pcapng, summary.md ─▶ thread ─▶ helper
//! ```

use std::fmt::Write as _;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use handshake_agent::Error as AgentError;
use handshake_agent::model::flow::{Flow, FlowEnd, Standing, View};
use handshake_agent::session::Session;
use handshake_common::flow::{Family, Side};
use handshake_common::record::Now;
use handshake_common::wire::{Packet, quote};
use handshake_record::evidence::{Asked, Attempt, CAPTURE, EACH, Evidence, KeptSegment};

use crate::error::CommandError;
use crate::helper::Helper;
use crate::number::group;
use crate::report::text::Style;
use crate::report::text::ladder::{LadderSteps, Step, StepMark, draw_ladder};
use crate::time::Zone;

/// The time between two writings at least: each writes all of it.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// The longest that the last evidence is written: a signal ends the process within two seconds.
pub(crate) const LAST_EVIDENCE: Duration = Duration::from_secs(1);
/// Columns of the summary's ladders.
const WIDTH: usize = 100;
/// The option that asks for it.
const OPTION: &str = "--evidence";

/// Pcapng and summary.
type Contents = (Vec<u8>, Vec<u8>);

/// Evidence that is being collected.
pub(crate) struct Collector {
    evidence: Evidence,
    path: String,
    zone: Zone,
    /// The look at the tables before; `None` before the first.
    looked: Option<Now>,
    written: Instant,
    contents: SyncSender<Contents>,
    told: Receiver<io::Result<()>>,
    /// Contents that were handed over and of which nothing is told yet.
    waiting: u32,
    is_written: bool,
    is_ill: bool,
}

impl Collector {
    /// Begins to collect, with so many bytes of data of each packet.
    ///
    /// # Errors
    ///
    /// There is no folder and none can be made; there is no room for a thread.
    pub(crate) fn start(
        helper: &Helper,
        path: &Path,
        payload: usize,
        zone: Zone,
    ) -> Result<Self, CommandError> {
        let shown = path.display().to_string();
        let fault = |source| CommandError::ReportFile { option: OPTION, path: shown.clone(), source };
        let mut handed = helper.evidence().map_err(fault)?;
        let (contents, waiting) = sync_channel::<Contents>(1);
        let (tell, told) = channel();
        let run = move || {
            while let Ok((capture, summary)) = waiting.recv() {
                if tell.send(handed.write(&capture, &summary)).is_err() {
                    return;
                }
            }
        };
        let started = thread::Builder::new().name("evidence".to_owned()).spawn(run);
        started.map_err(AgentError::system("start the thread for the evidence"))?;
        Ok(Self {
            evidence: Evidence::with_payload(payload),
            path: shown,
            zone,
            looked: None,
            written: Instant::now(),
            contents,
            told,
            waiting: 0,
            is_written: false,
            is_ill: false,
        })
    }

    /// Collects what has failed since the last call, and the packets that are still kept of what has failed.
    ///
    /// # Errors
    ///
    /// Those of reading the clocks and the counters, but for those that pass.
    pub(crate) fn collect(&mut self, session: &mut Session) -> Result<(), AgentError> {
        let (failed, unlisted) = session.take_failed();
        let view = match session.present() {
            Ok((view, _)) => view,
            // What has failed is collected all the same.
            Err(error) if error.is_passing() => session.view(),
            Err(error) => return Err(error),
        };
        let (evidence, moment) = (&mut self.evidence, &view.moment);
        failed.iter().for_each(|flow| evidence.offer(flow, moment));
        evidence.leave_out_unlisted(unlisted);
        let mut left_out = 0;
        session.for_each_open(moment.now, &mut |record| {
            left_out += u64::from(evidence.meet(record, self.looked, moment));
        });
        evidence.end_look(left_out);
        self.looked = Some(moment.now);
        if !evidence.is_empty() {
            session.for_each_kept(&mut |packet| evidence.take(packet));
        }
        Ok(())
    }

    /// Has what is new written, not too often. Returns what is to be said: the first failure of several, and the
    /// first success after them.
    pub(crate) fn write(&mut self, session: &Session) -> Option<String> {
        let said = self.listen();
        let is_due = self.waiting == 0 && self.written.elapsed() >= WRITE_EVERY;
        if is_due {
            self.hand_over(session);
        }
        said
    }

    /// Has one attempt written that was asked for, whatever there is of its kind. Says what became of it.
    ///
    /// # Errors
    ///
    /// Those of [`collect`](Self::collect).
    pub(crate) fn save(&mut self, session: &mut Session, flow: &Flow) -> Result<String, AgentError> {
        match self.evidence.ask(flow, &session.last().moment()) {
            Asked::Here => {}
            Asked::NoEvidence => return Ok("a handshake that has completed is no evidence".to_owned()),
            Asked::NoRoom => return Ok("there is no room for more evidence".to_owned()),
        }
        self.collect(session)?;
        self.hand_over(session);
        let packets = self.evidence.packets_of(flow);
        Ok(match packets {
            0 => "none of its packets is kept any more".to_owned(),
            _ if self.evidence.has_changed() => format!("{packets} packets wait for the disk"),
            _ => format!("{packets} packets go to {}", self.path),
        })
    }

    fn listen(&mut self) -> Option<String> {
        let mut said = None;
        for told in self.told.try_iter() {
            self.waiting -= 1;
            let was_ill = std::mem::replace(&mut self.is_ill, told.is_err());
            match told {
                Err(error) if !was_ill => said = Some(format!("{OPTION} {}: {error}", self.path)),
                Ok(()) if was_ill => said = Some(format!("{OPTION} {} is written again", self.path)),
                Err(_) | Ok(()) => {}
            }
        }
        said
    }

    /// Hands everything over, if it has changed or the last writing has failed. What was written is overwritten even
    /// if nothing is left of it: all have completed after all.
    fn hand_over(&mut self, session: &Session) {
        self.written = Instant::now();
        let is_nothing = self.evidence.is_empty() && !self.is_written;
        if is_nothing || !self.evidence.has_changed() && !self.is_ill {
            return;
        }
        self.is_written = true;
        let view = session.view();
        let program = concat!("handshake ", env!("CARGO_PKG_VERSION"));
        let capture = self.evidence.pcapng(program, |ns| view.wall(ns), |number| session.name_of(number));
        let summary = summary(&self.evidence, &view, self.zone);
        // One that waits has nothing before it but what is being written.
        if self.contents.try_send((capture, summary.into_bytes())).is_ok() {
            self.waiting += 1;
            self.evidence.was_handed_over();
        }
    }

    /// Collects what is left, and hands it over. Ends that are still in the ring are for this alone.
    ///
    /// # Errors
    ///
    /// Those of [`collect`](Self::collect).
    pub(crate) fn close(&mut self, session: &mut Session) -> Result<(), AgentError> {
        session.for_each_ended(&mut |_, _| ControlFlow::Continue(()));
        self.collect(session)?;
        self.hand_over(session);
        Ok(())
    }

    /// Waits so long at most until all is written. Returns what is to be said.
    pub(crate) fn finish(self, patience: Duration) -> Option<String> {
        let Self { path, contents, told, waiting, evidence, .. } = self;
        drop(contents);
        let until = Instant::now() + patience;
        let late = || io::Error::new(io::ErrorKind::TimedOut, "it takes too long");
        // What found no place beside what waits is not written.
        let is_left = evidence.has_changed() && waiting > 0;
        let mut last = Ok(());
        for _ in 0..waiting {
            let left = until.saturating_duration_since(Instant::now());
            last = told.recv_timeout(left).unwrap_or_else(|_| Err(late()));
        }
        let last = if is_left { last.and(Err(late())) } else { last };
        last.err().map(|error| format!("{OPTION} {path}: {error}"))
    }

    /// The same after what is left is collected.
    pub(crate) fn leave(mut self, session: &mut Session, patience: Duration) -> Option<String> {
        match self.close(session) {
            Ok(()) => self.finish(patience),
            Err(error) => Some(format!("{OPTION} {}: {error}", self.path)),
        }
    }
}

/// What the evidence comes to, in Markdown: each attempt as a ladder, with its sentence and from where it was seen.
fn summary(evidence: &Evidence, view: &View<'_>, zone: Zone) -> String {
    let attempts = evidence.attempts();
    let packets: usize = attempts.iter().map(|attempt| attempt.packets.len()).sum();
    let count = |count: usize| group(count as u64);
    let mut out = String::from("# Handshakes that failed\n\n");
    out += &format!(
        "`{CAPTURE}` has {} packets of {} attempts, and of no other: at most {EACH} of a service and a verdict.\n",
        count(packets),
        count(attempts.len()),
    );
    if evidence.left_out() > 0 {
        out +=
            &format!("{} more attempts failed, or may have, and are not here.\n", group(evidence.left_out()));
    }
    let missing: usize = attempts.iter().map(|attempt| attempt.missing()).sum();
    if missing > 0 {
        out += &format!("{} of their packets were lost before they were saved.\n", count(missing));
    }
    let mut heading = String::new();
    for attempt in attempts {
        let title = format!("\n## {}: {}\n", attempt.flow.end(Side::Responder), attempt.title());
        if title != heading {
            out += &title;
            heading = title;
        }
        let _ = write!(out, "\n{}", section(attempt, view, zone));
    }
    out
}

fn section(attempt: &Attempt, view: &View<'_>, zone: Zone) -> String {
    // How it stands is what was collected last.
    let standing = Standing::Tcp(attempt.verdict);
    let is_so = attempt.flow.standing(&view.moment) == standing;
    let ended = if is_so { attempt.flow.ended } else { Some(FlowEnd { standing, at_ns: None }) };
    let flow = Flow { ended, ..attempt.flow };
    let mut steps: Vec<Step> = Vec::with_capacity(attempt.packets.len());
    for packet in &attempt.packets {
        let step = step(packet, view);
        let said = |step: &Step| (step.source, step.flags, step.seq, step.ack, step.payload, step.reporter);
        let is_again = steps.iter().any(|other| said(other) == said(&step));
        steps.push(if is_again { Step { mark: StepMark::Again, ..step } } else { step });
    }
    let ladder = LadderSteps { first: &steps, left_out: 0, last: &[] };
    let drawn = draw_ladder(view, &flow, &ladder, Style::plain(WIDTH).within(zone));
    let missing = match attempt.missing() {
        0 => String::new(),
        missing => format!("; {missing} of its packets were lost before they were saved"),
    };
    format!("```\n{drawn}```\n\nSeat: {}{missing}.\n", view.seat(&flow).name())
}

fn step(KeptSegment { ns, packet, number, .. }: &KeptSegment, view: &View<'_>) -> Step {
    let Packet { source, source_port, flags, seq, ack, payload, .. } = *packet;
    let family = if packet.family == Family::V6 as u8 { Family::V6 } else { Family::V4 };
    Step {
        file: 0,
        number: *number,
        time_ns: view.wall(*ns),
        source: (source.ip(family), source_port).into(),
        flags,
        seq,
        ack,
        payload,
        reporter: (packet.quote != quote::NONE).then(|| packet.reporter.ip(family)),
        mark: StepMark::Plain,
    }
}
