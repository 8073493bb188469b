//! The lines that a check adds to the report: each expectation with its measured value, and the kernel's own
//! counters.
//!
//! ```text
//! command   ./load.sh · status 0 · 1.4 s
//! kernel    PassiveOpens 9   ActiveOpens 0   ListenOverflows 4
//!           13 completed on the wire, 9 accepted (PassiveOpens): 4 ACKs were ignored
//! expect    met completed >= 1000: 1 204
//!           FAILED completed / attempts >= 99.9%: 61.2 % (1 204 / 1 967)
//!           no_ack: our SYN+ACKs leave and no ACK returns. Look at: …
//! FAILED 1 of 2 expectations (exit 1)
//! ```

use handshake_agent::model::metric::{CONNECT_OF_ALL, METRICS};
use handshake_agent::model::snapshot::Snapshot;
use handshake_common::verdict::{Cause, Leg, Sign, UdpVerdict, Verdict};
use unicode_truncate::UnicodeTruncateStr as _;

use super::cause::Problem;
use super::layout::{Piece, Style, TextTone, bare, line, words};
use super::{DOT, WIDE, cause};
use crate::check::{
    Checked, Ended, Evidence, Expectation, ExpressionTerm, Figure, Fraction, Judged, Judgement,
    KernelCounter, Measured, NetAccount, Operation, Outcome, Reason, Status, ValueKind, Which,
};
use crate::number::{group, span};

/// The metric of the attempts that completed.
const COMPLETED: &str = "tcp.completed";

/// Most decimals. A value closer to its limit is distinguished by its numbers alone.
const MOST_DECIMALS: u32 = 6;
/// Kernel counters that are shown even if they are 0.
const ALWAYS: [KernelCounter; 2] = [KernelCounter::PassiveOpens, KernelCounter::ActiveOpens];

/// Draws the lines below the report, which has `said` already what is not said again.
pub(crate) fn draw_check(checked: &Checked<'_>, said: &str, style: Style) -> String {
    let mut out = String::new();
    if let Some(ended) = &checked.command {
        let pieces = [shortened(&ended.words.join(" ")), outcome(ended), span(checked.window.ran_ns())]
            .map(Piece::plain);
        line(&mut out, style, "command", &pieces, DOT);
    }
    if let Some(account) = &checked.account {
        draw_account(&mut out, account, style);
    }
    out.push_str(&draw_expectations(checked, said, style));
    out
}

/// The beginning of a command, enough to recognize it: an argument may be a whole script.
pub(crate) fn shortened(command: &str) -> String {
    /// Columns shown.
    const MOST: usize = 60;
    let (shown, _) = command.unicode_truncate(MOST);
    if shown.len() < command.len() { format!("{shown}…") } else { shown.to_owned() }
}

/// How the command ended, in words.
fn outcome(ended: &Ended) -> String {
    match ended.status {
        Some(Status::Exited(code)) if !ended.stopped => format!("status {code}"),
        Some(Status::Killed(signal)) if !ended.stopped => format!("killed by signal {signal}"),
        Some(Status::Exited(_) | Status::Killed(_)) | None => "stopped".to_owned(),
    }
}

/// Draws the expectations and the verdict alone.
pub(crate) fn draw_expectations(checked: &Checked<'_>, said: &str, style: Style) -> String {
    let mut out = String::new();
    let mut said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for (at, judged) in checked.judged.iter().enumerate() {
        draw_judged(&mut out, if at == 0 { "expect" } else { " " }, judged, &checked.window, style);
        for (name, sentence) in sentences(judged, checked) {
            // Each is said once.
            if said.contains(&sentence) {
                continue;
            }
            said.push_str(&sentence);
            let mut pieces = vec![Piece::new(format!("{name}:"), TextTone::Bad)];
            pieces.extend(words(&sentence));
            line(&mut out, style, " ", &pieces, " ");
        }
    }
    draw_verdict(&mut out, checked.verdict(), checked.code, style);
    out
}

/// Draws expectations that have no sentences, and the verdict.
pub(crate) fn draw_all_judged(
    all: &[Judged<'_>],
    evidence: &dyn Evidence,
    verdict: Option<String>,
    code: u8,
    style: Style,
) -> String {
    let mut out = String::new();
    for (at, judged) in all.iter().enumerate() {
        draw_judged(&mut out, if at == 0 { "expect" } else { " " }, judged, evidence, style);
    }
    draw_verdict(&mut out, verdict, code, style);
    out
}

/// Draws the last line.
fn draw_verdict(out: &mut String, verdict: Option<String>, code: u8, style: Style) {
    let tone = if code == 0 { TextTone::Good } else { TextTone::Bad };
    if let Some(verdict) = verdict {
        bare(out, style, &Piece::new(verdict, tone));
    }
}

/// Draws one expectation.
fn draw_judged(out: &mut String, label: &str, judged: &Judged<'_>, evidence: &dyn Evidence, style: Style) {
    let (word, tone) = match judged.judgement.outcome() {
        Outcome::Met => ("met", TextTone::Good),
        outcome @ (Outcome::Failed | Outcome::Inconclusive) => (outcome.word(), TextTone::Bad),
    };
    let said = format!("{}: {}", judged.expectation.text, measured(judged, evidence));
    // Never wrapped, because people search logs for it.
    line(out, style.endless(), label, &[Piece::new(word, tone), Piece::plain(said)], " ");
}

/// The measured value with the numbers that it is computed from, or the reason for which it is missing or
/// inconclusive.
pub(crate) fn measured(judged: &Judged<'_>, evidence: &dyn Evidence) -> String {
    let Expectation { left, right, .. } = judged.expectation;
    let value = judged.measured.map(|value| {
        let against = judged
            .limit
            .filter(|_| !matches!(right, ExpressionTerm::Constant(_)))
            .map(|limit| format!(" against {}", with_numbers(limit, judged, right, evidence)));
        format!("{}{}", with_numbers(value, judged, left, evidence), against.unwrap_or_default())
    });
    match (&judged.judgement, value) {
        (Judgement::Met | Judgement::Failed, value) => value.unwrap_or_default(),
        (Judgement::Inconclusive(reason), Some(value)) => format!("{value}, but {reason}"),
        (Judgement::Inconclusive(reason), None) => reason.to_string(),
    }
}

fn with_numbers(
    value: Measured,
    judged: &Judged<'_>,
    term: &ExpressionTerm,
    evidence: &dyn Evidence,
) -> String {
    let format = Spoken { kind: judged.expectation.kind, percent: judged.expectation.percent };
    let shown = format.value(value, judged.limit.and_then(Measured::known));
    match term {
        ExpressionTerm::Constant(_) | ExpressionTerm::Of(..) => shown,
        ExpressionTerm::Figure(figure) => format!("{shown}{}", of_how_many(figure, value, evidence)),
        ExpressionTerm::Change(of, kind) => changed(value, judged, (of, *kind), evidence),
        ExpressionTerm::Rate(of) => {
            let rise = evidence.rise(of).map(|(rise, time)| {
                let count = Spoken { kind: ValueKind::Count, percent: false }.value(rise, None);
                format!(" ({count} in {})", span(time))
            });
            format!("{shown}{}", rise.unwrap_or_default())
        }
        ExpressionTerm::Pair(..) => format!("{shown} ({})", in_numbers(term, evidence)),
    }
}

/// Which attempts a time to connect is of.
fn of_how_many(figure: &Figure, value: Measured, evidence: &dyn Evidence) -> String {
    let is_time_below = |path: &str| {
        let below = |metric: &&'static str| metric.strip_prefix(path)?.strip_prefix('.');
        figure.metrics.iter().filter_map(below).any(|name| name.ends_with("_ns"))
    };
    let (of_all, of_completed) =
        (is_time_below(CONNECT_OF_ALL), is_time_below(&format!("latency.{}", Leg::Connect.name())));
    let (all, not_connected) = evidence.connected(figure);
    let (known, connected) = (value.known().is_some(), all.saturating_sub(not_connected));
    match (of_all || of_completed, not_connected) {
        (false, _) => String::new(),
        (true, 0) => format!(", of all {}", attempts(all)),
        (true, _) if of_completed => {
            format!(", of the {} of {} that connected", group(connected), group(all))
        }
        (true, _) if known => {
            format!(", of all {}, of which {} have not connected", attempts(all), group(not_connected))
        }
        (true, _) => format!(": {} of {} have not connected", group(not_connected), attempts(all)),
    }
}

fn attempts(count: u64) -> String {
    format!("{} {}", group(count), if count == 1 { "attempt" } else { "attempts" })
}

/// A change, with what it is the change of.
fn changed(
    value: Measured,
    judged: &Judged<'_>,
    (of, kind): (&ExpressionTerm, ValueKind),
    evidence: &dyn Evidence,
) -> String {
    let share = Spoken { kind: ValueKind::Share, percent: true };
    let shown = share.value(value, judged.limit.and_then(Measured::known));
    let is_known = value.known().is_some();
    let (sign, shown) = match (kind, value.known().or(value.least()).and_then(factor)) {
        (ValueKind::Share, _) => ("", format!("{} points", shown.trim_end_matches(" %"))),
        (_, Some(factor)) if is_known => ("×", factor),
        (_, Some(factor)) => ("> ×", factor),
        (_, None) if value.known().is_some_and(|value| value > Fraction::ZERO) => ("+", shown),
        (_, None) => ("", shown),
    };
    let spoken = Spoken { kind, percent: true };
    let end = |which| {
        let term = ExpressionTerm::Of(which, Box::new(of.clone()));
        evidence.value(&term).map_or_else(|_| "–".to_owned(), |value| spoken.value(value, None))
    };
    let ends = format!("from {} to {}", end(Which::Old), end(Which::New));
    if judged.judgement == Judgement::Inconclusive(Reason::LowerBounds) {
        return ends;
    }
    format!("{sign}{shown} ({ends})")
}

/// A change by so much that it is told as a factor.
fn factor(change: Fraction) -> Option<String> {
    /// A larger share is hard to read.
    const LEAST: u64 = 10;
    let factor = change.plus(1_u64.into()).filter(|factor| *factor >= LEAST.into())?;
    Some(number(factor, None))
}

/// A term with the values of its figures: `1 204 / 1 967`.
fn in_numbers(term: &ExpressionTerm, evidence: &dyn Evidence) -> String {
    match term {
        ExpressionTerm::Pair(left, operation, right) => {
            let part = |part: &ExpressionTerm, first: bool| {
                let numbers = in_numbers(part, evidence);
                if part.needs_parentheses(*operation, first) { format!("({numbers})") } else { numbers }
            };
            format!("{} {} {}", part(left, true), operation.sign(), part(right, false))
        }
        ExpressionTerm::Constant(_)
        | ExpressionTerm::Figure(_)
        | ExpressionTerm::Change(..)
        | ExpressionTerm::Of(..)
        | ExpressionTerm::Rate(_) => {
            let kind = match (matches!(term, ExpressionTerm::Change(..)), is_time(term)) {
                (true, _) => ValueKind::Share,
                (false, true) => ValueKind::Time,
                (false, false) => ValueKind::Number,
            };
            let spoken = Spoken { kind, percent: true };
            evidence.value(term).map_or_else(|_| "–".to_owned(), |value| spoken.value(value, None))
        }
    }
}

fn is_time(term: &ExpressionTerm) -> bool {
    let is_ns = |figure: &Figure| figure.metrics.iter().any(|name| name.ends_with("_ns"));
    term.figures().into_iter().any(is_ns)
}

/// How values are shown.
#[derive(Clone, Copy)]
pub(crate) struct Spoken {
    /// Their kind.
    pub(crate) kind: ValueKind,
    /// Whether shares are in percent.
    pub(crate) percent: bool,
}

impl Spoken {
    /// Formats what is known of a value, with as many decimals as distinguish it from the limit.
    pub(crate) fn value(self, value: Measured, limit: Option<Fraction>) -> String {
        match (value.known(), value.least(), value.most()) {
            (Some(value), ..) => self.number(value, limit),
            (None, Some(least), Some(most)) => {
                format!("{} to {}", self.number(least, limit), self.number(most, limit))
            }
            (None, Some(least), None) => format!("> {}", self.number(least, limit)),
            (None, None, Some(most)) => format!("< {}", self.number(most, limit)),
            (None, None, None) if value.is_never() => match self.kind {
                ValueKind::Time => "never".to_owned(),
                ValueKind::Number | ValueKind::Count | ValueKind::Share | ValueKind::Rate => "∞".to_owned(),
            },
            (None, None, None) => "–".to_owned(),
        }
    }

    /// Formats a number by its kind.
    fn number(self, value: Fraction, limit: Option<Fraction>) -> String {
        match self.kind {
            ValueKind::Time => time(value, limit),
            ValueKind::Rate => format!("{}/s", number(value, limit)),
            ValueKind::Share if self.percent => {
                let hundred = Fraction::from(100_u64);
                let percent = |share: Fraction| share.times(hundred);
                match percent(value) {
                    // 100.0 means all and 0.0 means none.
                    Some(value) => {
                        let limits = [limit.and_then(percent), Some(hundred), Some(Fraction::ZERO)];
                        format!("{} %", decimals(value, &limits, 1))
                    }
                    None => number(value, limit),
                }
            }
            ValueKind::Share => decimals(value, &[limit], 3),
            ValueKind::Number | ValueKind::Count => number(value, limit),
        }
    }
}

fn number(value: Fraction, limit: Option<Fraction>) -> String {
    decimals(value, &[limit], u32::from(value.whole().is_none()))
}

/// Formats a time in the unit that fits.
fn time(ns: Fraction, limit: Option<Fraction>) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")];
    let fits = UNITS.into_iter().find(|(scale, _)| ns >= Fraction::from(*scale));
    let (scale, unit) = fits.unwrap_or((1, "ns"));
    let scaled = |ns: Fraction| ns.over(scale.into());
    match scaled(ns) {
        Some(value) => {
            let least = u32::from(value.whole().is_none());
            format!("{} {unit}", decimals(value, &[limit.and_then(scaled)], least))
        }
        None => format!("{ns} ns"),
    }
}

/// Formats a value with at least `least` decimals, and with more if rounding would put it on the wrong side
/// of a limit.
fn decimals(value: Fraction, limits: &[Option<Fraction>], least: u32) -> String {
    let tells = |decimals: &u32| {
        let shown = value.rounded(*decimals);
        let side = |limit: &Fraction| shown.is_some_and(|shown| shown.cmp(limit) == value.cmp(limit));
        limits.iter().flatten().all(side)
    };
    let enough = (least..MOST_DECIMALS).find(tells).unwrap_or(MOST_DECIMALS);
    let digits = value.rounded(enough).and_then(|rounded| rounded.digits(enough));
    let Some((negative, whole, part)) = digits else { return value.to_string() };
    let sign = if negative { "-" } else { "" };
    let whole = u64::try_from(whole).map_or_else(|_| whole.to_string(), group);
    let width = usize::try_from(enough).unwrap_or(0);
    if enough == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part:0width$}") }
}

/// The sentences for the figures of a failed expectation, each with its name.
pub(crate) fn sentences(judged: &Judged<'_>, checked: &Checked<'_>) -> Vec<(String, String)> {
    let (expectation, snapshot) = (judged.expectation, &checked.window.settled);
    let mut all = Vec::new();
    if judged.judgement != Judgement::Failed {
        return all;
    }
    for side in [&expectation.left, &expectation.right] {
        let is_share = matches!(side, ExpressionTerm::Pair(_, Operation::Over, _));
        for figure in dividends(side) {
            for metric in METRICS.iter().filter(|metric| figure.metrics.contains(&metric.name.as_str())) {
                if metric.name == COMPLETED && !is_share {
                    all.push((figure.to_string(), in_the_time(figure, checked)));
                    all.extend(obstacles(figure, snapshot));
                } else {
                    all.extend(about(figure, &metric.name, metric.help, snapshot));
                }
            }
        }
    }
    all
}

/// What began and what completed until the command's end.
fn in_the_time(figure: &Figure, checked: &Checked<'_>) -> String {
    let window = &checked.window;
    let [before, after] = [&window.started, &window.ended].map(|snapshot| figure.books(snapshot));
    let begun = after.attempts.saturating_sub(before.attempts);
    let rise = |verdict| after.verdict(verdict).saturating_sub(before.verdict(verdict));
    let completed = rise(Verdict::Completed);
    let began =
        format!("{} began and {} completed in {}", attempts(begun), group(completed), span(window.ran_ns()));
    if begun == completed { format!("{began}: what began is the limit, no attempt failed") } else { began }
}

/// The figures of a term except those of divisors.
fn dividends(term: &ExpressionTerm) -> Vec<&Figure> {
    match term {
        ExpressionTerm::Pair(left, Operation::Over, _) => dividends(left),
        ExpressionTerm::Pair(left, Operation::Plus | Operation::Minus, right) => {
            [dividends(left), dividends(right)].concat()
        }
        ExpressionTerm::Constant(_)
        | ExpressionTerm::Figure(_)
        | ExpressionTerm::Change(..)
        | ExpressionTerm::Of(..)
        | ExpressionTerm::Rate(_) => term.figures(),
    }
}

/// The problems that kept a figure's attempts from completing, each with its count.
fn obstacles(figure: &Figure, snapshot: &Snapshot) -> Vec<(String, String)> {
    let counted = |problem: Problem| (format!("{} {}", group(problem.count), problem.name), problem.sentence);
    cause::obstacles(&figure.books(snapshot), snapshot).into_iter().map(counted).collect()
}

/// The sentences for one metric: the problems that kept attempts from completing or flows from being
/// answered, the causes of half-open attempts, the signs that make times long; otherwise the metric's own.
fn about(figure: &Figure, metric: &str, help: &str, snapshot: &Snapshot) -> Vec<(String, String)> {
    let own = || (figure.to_string(), help.to_owned());
    let own_or = |others: Vec<(String, String)>| if others.is_empty() { vec![own()] } else { others };
    let books = figure.books(snapshot);
    match metric {
        COMPLETED => own_or(obstacles(figure, snapshot)),
        _ if metric.starts_with(CONNECT_OF_ALL) && snapshot.connect_of_all.not_connected != 0 => {
            own_or(obstacles(figure, snapshot))
        }
        "tcp.half_open.now" => {
            let causes =
                Cause::ALL.into_iter().filter(|cause| books.by_cause(Verdict::HalfOpen).of(*cause) != 0);
            own_or(
                causes
                    .map(|cause| (cause.name().to_owned(), cause::sentence(cause, snapshot, None)))
                    .collect(),
            )
        }
        "udp.answered" => {
            let others = [UdpVerdict::Unanswered, UdpVerdict::Unreachable].into_iter();
            let seen = others.filter(|verdict| snapshot.udp.books.verdict(*verdict) != 0);
            own_or(seen.map(|verdict| (verdict.name().to_owned(), verdict.sentence().to_owned())).collect())
        }
        "tcp.attempts" => own_or(
            cause::quiet(snapshot).map(|sentence| (figure.to_string(), sentence)).into_iter().collect(),
        ),
        _ if metric.starts_with("latency.") => {
            let retries = [Sign::SynRetransmit, Sign::SynAckRetransmit].into_iter();
            let seen = retries.filter(|sign| snapshot.tcp.sign(*sign) != 0);
            let signs = seen.map(|sign| (sign.name().to_owned(), sign.sentence().to_owned()));
            std::iter::once(own()).chain(signs).collect()
        }
        _ => vec![own()],
    }
}

/// Draws the kernel's counters, and in words their difference from the wire's.
fn draw_account(out: &mut String, account: &NetAccount, style: Style) {
    let shown = KernelCounter::ALL.into_iter();
    let shown = shown.filter(|counter| ALWAYS.contains(counter) || account.counts.of(*counter) != 0);
    let mut pieces: Vec<Piece> = shown
        .map(|counter| Piece::plain(format!("{} {}", counter.name(), group(account.counts.of(counter)))))
        .collect();
    pieces.push(Piece::new("(of the whole network namespace)", TextTone::Faint));
    line(out, style, "kernel", &pieces, WIDE);
    for sentence in account.words() {
        line(out, style, " ", &words(&sentence), " ");
    }
}
