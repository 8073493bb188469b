//! The lines that a check adds to the report: each expectation with its measured value, and the kernel's own
//! counters.
//!
//! ```text
//! command   ./load.sh · status 0 · 1.4 s
//! expect    met completed >= 1000: 1 204
//!           FAILED completed / attempts >= 99.9%: 61.2 % (1 204 / 1 967)
//!           no_ack: our SYN+ACKs leave and no ACK returns. Look at: …
//! kernel    PassiveOpens 9   ActiveOpens 0   ListenOverflows 4
//!           13 completed on the wire, 9 accepted (PassiveOpens): 4 ACKs were ignored
//! ```

use handshake_agent::model::metric::METRICS;
use handshake_agent::model::snapshot::Snapshot;
use handshake_common::verdict::{Cause, Sign, UdpVerdict, Verdict};
use unicode_truncate::UnicodeTruncateStr as _;

use super::layout::{Piece, Style, TextTone, line, words};
use super::{DOT, WIDE, cause};
use crate::check::{
    Checked, Ended, Expectation, ExpressionTerm, Figure, Fraction, Judged, JudgedWindow, Judgement,
    KernelCounter, NetAccount, Operation, Status, ValueKind,
};
use crate::number::{group, span};

/// Most decimals. A value closer to its limit is distinguished by its numbers alone.
const MOST_DECIMALS: u32 = 6;
/// Kernel counters that are shown even if they are 0.
const ALWAYS: [KernelCounter; 2] = [KernelCounter::PassiveOpens, KernelCounter::ActiveOpens];

/// Draws the lines below the report.
pub(crate) fn draw_check(checked: &Checked<'_>, style: Style) -> String {
    let mut out = String::new();
    if let Some(ended) = &checked.command {
        let pieces = [shortened(&ended.words.join(" ")), outcome(ended), span(checked.window.ran_ns())]
            .map(Piece::plain);
        line(&mut out, style, "command", &pieces, DOT);
    }
    if let Some(account) = &checked.account {
        draw_account(&mut out, account, style);
    }
    out.push_str(&draw_expectations(checked, style));
    out
}

/// The beginning of a command, enough to recognize it: an argument may be a whole script.
fn shortened(command: &str) -> String {
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

/// Draws the expectations alone.
pub(crate) fn draw_expectations(checked: &Checked<'_>, style: Style) -> String {
    let mut out = String::new();
    for (at, judged) in checked.judged.iter().enumerate() {
        draw_judged(&mut out, if at == 0 { "expect" } else { " " }, judged, &checked.window, style);
    }
    out
}

fn draw_judged(out: &mut String, label: &str, judged: &Judged<'_>, window: &JudgedWindow, style: Style) {
    let (word, tone) = match judged.judgement {
        Judgement::Met => ("met", TextTone::Good),
        Judgement::Failed => ("FAILED", TextTone::Bad),
        Judgement::Inconclusive(_) => ("INCONCLUSIVE", TextTone::Bad),
    };
    let said = format!("{}: {}", judged.expectation.text, measured(judged, window));
    // Never wrapped, because people search logs for it.
    line(out, style.endless(), label, &[Piece::new(word, tone), Piece::plain(said)], " ");
    if judged.judgement == Judgement::Failed {
        for (name, sentence) in sentences(judged.expectation, &window.settled) {
            let mut pieces = vec![Piece::new(format!("{name}:"), TextTone::Bad)];
            pieces.extend(words(&sentence));
            line(out, style, " ", &pieces, " ");
        }
    }
}

/// The measured value with the numbers that it is computed from, or the reason for which it is missing or
/// inconclusive.
fn measured(judged: &Judged<'_>, window: &JudgedWindow) -> String {
    let Expectation { left, right, .. } = judged.expectation;
    let bounds =
        judged.bounds.map(|(least, most)| format!("{} to {}", spoken(least, judged), spoken(most, judged)));
    let known = judged.measured.map(|value| with_numbers(value, judged, left, window));
    let value = known.or(bounds).map(|value| {
        let against = judged
            .limit
            .filter(|_| !matches!(right, ExpressionTerm::Constant(_)))
            .map(|limit| format!(" against {}", with_numbers(limit, judged, right, window)));
        format!("{value}{}", against.unwrap_or_default())
    });
    match (&judged.judgement, value) {
        (Judgement::Met | Judgement::Failed, value) => value.unwrap_or_default(),
        (Judgement::Inconclusive(reason), Some(value)) => format!("{value}, but {reason}"),
        (Judgement::Inconclusive(reason), None) => reason.to_string(),
    }
}

fn with_numbers(
    value: Fraction,
    judged: &Judged<'_>,
    term: &ExpressionTerm,
    window: &JudgedWindow,
) -> String {
    let shown = spoken(value, judged);
    match term {
        ExpressionTerm::Constant(_) | ExpressionTerm::Figure(_) => shown,
        ExpressionTerm::Rate(of) => {
            let rise = window.rise(of).map_or_else(|reason| reason.to_string(), |rise| number(rise, None));
            format!("{shown} ({rise} in {})", span(window.ran_ns()))
        }
        ExpressionTerm::Pair(..) => format!("{shown} ({})", in_numbers(term, window)),
    }
}

/// A term with the values of its figures: `1 204 / 1 967`.
fn in_numbers(term: &ExpressionTerm, window: &JudgedWindow) -> String {
    match term {
        ExpressionTerm::Pair(left, operation, right) => {
            let part = |part: &ExpressionTerm, first: bool| {
                let numbers = in_numbers(part, window);
                if part.needs_parentheses(*operation, first) { format!("({numbers})") } else { numbers }
            };
            format!("{} {} {}", part(left, true), operation.sign(), part(right, false))
        }
        ExpressionTerm::Constant(_) | ExpressionTerm::Figure(_) | ExpressionTerm::Rate(_) => {
            match window.value(term) {
                Ok(value) if is_time(term) => time(value, None),
                Ok(value) => number(value, None),
                Err(_) => "–".to_owned(),
            }
        }
    }
}

fn is_time(term: &ExpressionTerm) -> bool {
    let is_ns = |figure: &Figure| figure.metrics.iter().any(|name| name.ends_with("_ns"));
    term.figures().into_iter().any(is_ns)
}

/// Formats a value by its kind, with as many decimals as distinguish it from the limit.
fn spoken(value: Fraction, judged: &Judged<'_>) -> String {
    let limit = judged.limit;
    match judged.expectation.kind {
        ValueKind::Time => time(value, limit),
        ValueKind::Rate => format!("{}/s", number(value, limit)),
        ValueKind::Share if judged.expectation.percent => {
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

/// The sentences for the figures of a failed expectation, each with its name and once.
fn sentences(expectation: &Expectation, snapshot: &Snapshot) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for figure in [&expectation.left, &expectation.right].into_iter().flat_map(dividends) {
        for name in &figure.metrics {
            let known = METRICS.iter().find(|metric| metric.name == *name);
            all.extend(known.map(|metric| about(figure, name, metric.help, snapshot)).into_iter().flatten());
        }
    }
    let mut seen = Vec::new();
    all.retain(|(name, _)| {
        !seen.contains(name) && {
            seen.push(name.clone());
            true
        }
    });
    all
}

/// The figures of a term except those of divisors.
fn dividends(term: &ExpressionTerm) -> Vec<&Figure> {
    match term {
        ExpressionTerm::Pair(left, Operation::Over, _) => dividends(left),
        ExpressionTerm::Pair(left, Operation::Plus | Operation::Minus, right) => {
            [dividends(left), dividends(right)].concat()
        }
        ExpressionTerm::Constant(_) | ExpressionTerm::Figure(_) | ExpressionTerm::Rate(_) => term.figures(),
    }
}

/// The sentences for one metric: the problems that kept attempts from completing or flows from being
/// answered, the causes of half-open attempts, the signs that make times long; otherwise the metric's own.
fn about(figure: &Figure, metric: &str, help: &str, snapshot: &Snapshot) -> Vec<(String, String)> {
    let own = || (figure.to_string(), help.to_owned());
    let own_or = |others: Vec<(String, String)>| if others.is_empty() { vec![own()] } else { others };
    let books = figure.books(snapshot);
    match metric {
        "tcp.completed" => {
            let obstacles = cause::obstacles(&books, snapshot).into_iter();
            own_or(obstacles.map(|problem| (problem.name.to_owned(), problem.sentence)).collect())
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
