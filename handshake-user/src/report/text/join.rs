//! Two joined accounts: what the attempts come to, and a ladder with three posts for each way in which they
//! were lost:
//!
//! ```text
//! first     client.jsonl · 26 attempts · 12:03:41 UTC, 31 s · the initiators' side
//! second    server.jsonl · 26 attempts · 12:03:41 UTC, 31 s · the responders' side
//! attempts  26 in both   26 translated   20 completed
//! lost      6 SYN+ACKs left the responders' side and never reached the initiators'
//!
//!     seconds  first                           between                          second    seconds
//!              10.77.1.2:35622                                         10.77.2.1:35622
//!    0.000000  ├─ SYN seq=J ─────────────────────▶│───────────────────────────────▶│   0.000000
//!              │               ✘────────────────│◀───────────────── SYN+ACK seq=K ─┤   0.000041
//! ```

use std::collections::BTreeMap;

use handshake_common::verdict::{Seat, Verdict};
use handshake_join::{Attempt, ClockFinding, Doubt, Inexact, Joined, Outcome, Row, Segment, Times, Which};
use unicode_width::UnicodeWidthStr as _;

use super::ladder::{RungCertainty, RungDirection, seconds, shaft};
use super::layout::{Piece, Style, TextTone, line, words};
use super::{DOT, WIDE};
use crate::number::{group, percent, span, time};

/// Width of a column of seconds.
const SECONDS: usize = 11;
/// Most columns of half a ladder, and fewest.
const WIDEST: usize = 44;
const NARROWEST: usize = 30;
/// Translations that are listed.
const TRANSLATIONS: usize = 4;
/// What is between the two places.
const BETWEEN: &str = "between";

/// Draws what the attempts come to, and a ladder of each way in which they were lost.
pub(crate) fn draw_join(joined: &Joined, style: Style) -> String {
    let mut out = String::new();
    for which in Which::BOTH {
        account(&mut out, joined, which, style);
    }
    if joined.usually_near() == Which::Second {
        let said =
            "the first account is of the responders' side: CLIENT and SERVER are named the other way round";
        line(&mut out, style, "swapped", &words(said), " ");
    }
    for which in Which::BOTH {
        for Inexact { reason, count, sentence } in &joined.accounts[which as usize].inexact {
            let said = format!("{} {reason} {}: {sentence}", which.name(), group(*count));
            let pieces: Vec<Piece> = said.split(' ').map(|word| Piece::new(word, TextTone::Bad)).collect();
            line(&mut out, style, "inexact", &pieces, " ");
        }
    }
    attempts(&mut out, joined, style);
    let found = found(joined);
    found.iter().for_each(|found| lost(&mut out, joined, found, style));
    undecided(&mut out, joined, style);
    translations(&mut out, joined, style);
    clocks(&mut out, joined, style);
    if !joined.tells() {
        line(&mut out, style, "nothing", &words(NOTHING), " ");
    }
    let is_alone = found.len() == 1;
    for Found { row, .. } in found.iter().filter(|found| is_alone || found.kind.outcome != Outcome::Completed)
    {
        out.push('\n');
        out.push_str(&Ladder::of(joined, row, style).draw());
    }
    out
}

/// What is said where the accounts have nothing in common.
const NOTHING: &str = "no attempt is in both accounts. Look at: were both taken at the same time, and of the same \
                       connections?";

/// Draws an attempt in a line.
pub(crate) fn draw_joined(joined: &Joined, row: &Row, style: Style) -> String {
    let mut out = String::new();
    let [near, far] = joined.near_and_far(row);
    let Some(one) = near.or(far) else { return out };
    let mut pieces = vec![Piece::plain(style.zone().dated(one.started_ns)), Piece::plain(ends(one))];
    if let Some(far) = near.and(far).filter(|far| !far.has_ends_of(one)) {
        pieces.push(Piece::plain(format!("as {}", ends(far))));
    }
    pieces.push(Piece::new(outcome(row), tone(row.outcome)));
    pieces.extend(near.xor(far).map(|_| Piece::plain(format!("in the {} alone", only(row)))));
    let [syn, syn_ack] = joined.one_way_ns(row);
    for (name, ns) in
        [("SYN took", syn), ("SYN+ACK took", syn_ack), ("there and back", joined.round_trip_ns(row))]
    {
        pieces.extend(ns.map(|ns| Piece::plain(format!("{name} {}", time(ns)))));
    }
    line(&mut out, style.endless(), "", &pieces, DOT);
    out
}

fn only(row: &Row) -> &'static str {
    row.only().map_or("", Which::name)
}

fn ends(attempt: &Attempt) -> String {
    format!("{} → {}", attempt.initiator.socket(), attempt.responder.socket())
}

fn outcome(row: &Row) -> String {
    match row.outcome {
        Outcome::LostBetween(segment) => format!("{} {}", row.outcome.name(), segment.name()),
        Outcome::Ended(verdict) => verdict.name().to_owned(),
        Outcome::ResetBetween(verdict) => format!("{} {}", row.outcome.name(), verdict.name()),
        Outcome::Undecided(doubt) => format!("{} {}", row.outcome.name(), doubt.name()),
        Outcome::Completed | Outcome::LostIn(_) | Outcome::AnsweredBetween | Outcome::Alone => {
            row.outcome.name().to_owned()
        }
    }
}

const fn tone(outcome: Outcome) -> TextTone {
    match outcome {
        Outcome::Completed => TextTone::Good,
        Outcome::LostBetween(_) | Outcome::LostIn(_) => TextTone::Bad,
        Outcome::Ended(_) | Outcome::ResetBetween(_) => TextTone::Bad,
        Outcome::AnsweredBetween | Outcome::Undecided(_) | Outcome::Alone => TextTone::Plain,
    }
}

/// An account: its files, its attempts, its times, and its side.
fn account(out: &mut String, joined: &Joined, which: Which, style: Style) {
    let account = &joined.accounts[which as usize];
    let mut pieces = vec![
        Piece::new(account.name.clone(), TextTone::Strong),
        Piece::plain(format!("{} attempts", group(account.attempts.len() as u64))),
    ];
    if let Some(looked) = account.span() {
        let length = span(looked.to_ns - looked.from_ns);
        pieces.push(Piece::plain(format!("{}, {length}", style.zone().dated(looked.from_ns))));
    }
    let is_mixed = joined.totals.nearer.iter().all(|count| *count != 0);
    let side = if is_mixed { None } else { Some(side(which == joined.usually_near())) };
    pieces.extend(side.map(|side| Piece::plain(format!("the {side} side"))));
    if !account.inexact.is_empty() {
        pieces.push(Piece::new("INEXACT", TextTone::Bad));
    }
    line(out, style, which.name(), &pieces, DOT);
}

const fn side(is_near: bool) -> &'static str {
    if is_near { "initiators'" } else { "responders'" }
}

fn attempts(out: &mut String, joined: &Joined, style: Style) {
    let totals = &joined.totals;
    let share = percent(totals.completed, totals.matched);
    let mut pieces = vec![Piece::new(format!("{} in both", group(totals.matched)), TextTone::Strong)];
    let more = [
        (totals.translated, "translated"),
        (totals.rewritten, "with a number rewritten between"),
        (totals.only[0], "in the first alone"),
        (totals.only[1], "in the second alone"),
    ];
    pieces.extend(
        more.iter()
            .filter(|(count, _)| *count != 0)
            .map(|(count, what)| Piece::plain(format!("{} {what}", group(*count)))),
    );
    if totals.matched != 0 {
        pieces.push(Piece::new(format!("{} completed ({share})", group(totals.completed)), TextTone::Good));
    }
    line(out, style, "attempts", &pieces, WIDE);
}

/// A way in which attempts came out, and which account was near their initiators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    outcome: Outcome,
    near: Which,
}

impl Kind {
    /// Losses first, in the order of the segments.
    fn rank(self) -> (u8, u8) {
        let rank = match self.outcome {
            Outcome::LostBetween(segment) => segment as u8,
            Outcome::LostIn(which) => {
                if which == self.near {
                    4
                } else {
                    3
                }
            }
            Outcome::AnsweredBetween => 5,
            Outcome::Ended(verdict) => 10 + verdict as u8,
            Outcome::ResetBetween(verdict) => 50 + verdict as u8,
            Outcome::Completed => 100,
            Outcome::Undecided(_) | Outcome::Alone => 101,
        };
        (rank, self.near as u8)
    }
}

/// How many attempts came out in a way, and the first of them.
struct Found<'a> {
    kind: Kind,
    count: u64,
    row: &'a Row,
}

fn found(joined: &Joined) -> Vec<Found<'_>> {
    let mut found: BTreeMap<(u8, u8), Found<'_>> = BTreeMap::new();
    for row in &joined.rows {
        let kind = Kind { outcome: row.outcome, near: row.near };
        if !matches!(row.outcome, Outcome::Undecided(_) | Outcome::Alone) {
            found.entry(kind.rank()).or_insert(Found { kind, count: 0, row }).count += 1;
        }
    }
    found.into_values().collect()
}

fn lost(out: &mut String, joined: &Joined, Found { kind, count, row }: &Found<'_>, style: Style) {
    let (label, said) = match kind.outcome {
        Outcome::LostBetween(segment) => ("lost", lost_between(joined, row, segment)),
        Outcome::LostIn(which) => ("lost", lost_in(joined, row, which == kind.near)),
        Outcome::AnsweredBetween => (
            "answered",
            "between: another J behind, another K before. A proxy or a load balancer answers itself"
                .to_owned(),
        ),
        Outcome::Ended(verdict) => ("ended", verdict.name().to_owned()),
        Outcome::ResetBetween(verdict) => ("reset", reset_between(verdict)),
        Outcome::Completed | Outcome::Undecided(_) | Outcome::Alone => return,
    };
    let count = Piece::new(group(*count), TextTone::Strong);
    let pieces: Vec<Piece> = std::iter::once(count).chain(words(&said)).collect();
    line(out, style, label, &pieces, " ");
}

/// Whether the near account, or the far one, was taken at an end of this attempt.
fn is_at_end(joined: &Joined, row: &Row, near: bool) -> bool {
    let [at_near, at_far] = joined.near_and_far(row);
    let (seen, seat) = if near { (at_near, Seat::Initiator) } else { (at_far, Seat::Responder) };
    seen.is_some_and(|attempt| attempt.seat == Some(seat))
}

fn lost_between(joined: &Joined, row: &Row, segment: Segment) -> String {
    let by_near = segment != Segment::SynAck;
    let left = if is_at_end(joined, row, by_near) { "left" } else { "passed" };
    let ([from, to], name) = ([by_near, !by_near].map(side), segment.title());
    format!("between: the {name} {left} the {from} side and never reached the {to}")
}

fn reset_between(verdict: Verdict) -> String {
    let to_near = verdict != Verdict::InitiatorAborted;
    format!(
        "between: a RST came to the {} side and never passed the {}. Look at: a firewall between them",
        side(to_near),
        side(!to_near)
    )
}

/// Where that account was taken at no end, the loss may be behind it.
fn lost_in(joined: &Joined, row: &Row, near: bool) -> String {
    let (came, missing) = if near { ("SYN+ACK", "ACK") } else { ("SYN", "SYN+ACK") };
    let look = match (near, is_at_end(joined, row, near)) {
        (_, false) => {
            return format!(
                "on the {} side or behind it: the {came} came there and no {missing} did",
                side(near)
            );
        }
        (true, true) => "a local firewall, a program that died",
        (false, true) => "the listener's queue, a local firewall, the route back",
    };
    format!("on the {} side: the {came} came there and no {missing} left. Look at: {look}", side(near))
}

fn undecided(out: &mut String, joined: &Joined, style: Style) {
    for doubt in Doubt::ALL {
        let count = joined.totals.undecided[doubt as usize];
        if count != 0 {
            let said = format!("{} undecided: {}", group(count), doubt.sentence());
            line(out, style, "doubt", &words(&said), " ");
        }
    }
    if joined.totals.unclear != 0 {
        let said = format!(
            "{} unclear: in the initiators' account alone, and need not have come to the other, which did not look at \
             that time, lists not all that failed, or knows no such responder",
            group(joined.totals.unclear)
        );
        line(out, style, "doubt", &words(&said), " ");
    }
}

fn translations(out: &mut String, joined: &Joined, style: Style) {
    for (of, attempts) in joined.most_translations(TRANSLATIONS) {
        let mut said = vec![Piece::plain(format!("{} translated", group(attempts)))];
        said.extend(of.initiator.map(|[near, far]| Piece::plain(format!("initiator {near} to {far}"))));
        let sockets = of.responder.map(|responder| responder.map(|each| each.socket()));
        said.extend(sockets.map(|[before, behind]| Piece::plain(format!("responder {before} to {behind}"))));
        if said.len() == 1 {
            said.push(Piece::plain("the initiator's port alone"));
        }
        line(out, style, "nat", &said, DOT);
    }
}

/// What the times say of the clocks, and the times that hold whatever they say.
fn clocks(out: &mut String, joined: &Joined, style: Style) {
    let ahead = |ns: i64| {
        let which = if ns < 0 { "behind" } else { "ahead" };
        format!("{} {which}", span(ns.unsigned_abs()))
    };
    let said = match joined.clocks.finding() {
        ClockFinding::Unknown => None,
        ClockFinding::Agree(error) => Some(format!("agree, as far as the segments tell: to {}", time(error))),
        ClockFinding::Differ(least, most) => Some(format!(
            "the second is {}, to {}: no time of one way is known",
            ahead(least.midpoint(most)),
            time(most.abs_diff(least))
        )),
        ClockFinding::About(about) => {
            Some(format!("the second is about {}: no time of one way is known", ahead(about)))
        }
        ClockFinding::Changed(least, most) => Some(format!(
            "their difference changed meanwhile, by {}: no time of one way is known",
            time(most.abs_diff(least))
        )),
    };
    if let Some(said) = said {
        line(out, style, "clocks", &words(&said), " ");
    }
    let [syn, syn_ack] = &joined.one_way;
    let rows = [("SYN", syn), ("SYN+ACK", syn_ack), ("there and back", &joined.round_trip)];
    let pieces: Vec<Piece> = rows.iter().filter_map(|(name, times)| spread(name, times)).collect();
    if !pieces.is_empty() {
        line(out, style, "way", &pieces, WIDE);
    }
}

fn spread(name: &str, times: &Times) -> Option<Piece> {
    let [p50, p99] = [50, 99].map(|percent| times.percentile(percent).map(time));
    Some(Piece::plain(format!("{name} p50 {}, p99 {}", p50?, p99?)))
}

/// A ladder with three posts: the place near the initiator, what is between, and the place near the
/// responder.
struct Ladder<'a> {
    row: &'a Row,
    near: Option<&'a Attempt>,
    far: Option<&'a Attempt>,
    style: Style,
    /// Columns between two posts.
    half: usize,
}

/// A half of a rung; `None` where nothing passes.
type Half<'a> = Option<(RungDirection, RungCertainty, &'a str)>;

/// A rung: both halves, and when each place saw it after its own first SYN, ns.
struct Rung<'a> {
    halves: [Half<'a>; 2],
    times: [Option<u64>; 2],
    tone: TextTone,
}

const OUT: RungDirection = RungDirection::FromInitiator;
const BACK: RungDirection = RungDirection::FromResponder;

impl<'a> Ladder<'a> {
    fn of(joined: &'a Joined, row: &'a Row, style: Style) -> Self {
        let [near, far] = joined.near_and_far(row);
        let room = style.width().saturating_sub(2 * (SECONDS + 2) + 3) / 2;
        Self { row, near, far, style, half: room.clamp(NARROWEST, WIDEST) }
    }

    fn draw(&self) -> String {
        let mut out = String::new();
        let title = [Piece::new(outcome(self.row), tone(self.row.outcome)), Piece::plain(self.when())];
        line(&mut out, self.style, "", &title, DOT);
        self.head(&mut out);
        self.rungs().iter().for_each(|rung| self.rung(&mut out, rung));
        let numbers: Vec<Piece> = self.numbers().into_iter().map(Piece::plain).collect();
        line(&mut out, self.style, "numbers", &numbers, " ");
        out
    }

    /// J and K, and those at the far place where they are others.
    fn numbers(&self) -> Vec<String> {
        let named = |name: &str, number: Option<u32>| number.map(|number| format!("{name}={number}"));
        let j = |of: Option<&Attempt>| of.map(|of| of.j);
        let [near_k, far_k] = [self.near, self.far].map(|of| of.and_then(Attempt::k));
        let is_other = self.row.outcome == Outcome::AnsweredBetween || self.row.is_rewritten;
        let all = if is_other {
            [("J", j(self.near)), ("K", near_k), ("J'", j(self.far)), ("K'", far_k)]
        } else {
            [("J", j(self.near.or(self.far))), ("K", near_k.or(far_k)), ("", None), ("", None)]
        };
        all.into_iter().filter_map(|(name, number)| named(name, number)).collect()
    }

    fn when(&self) -> String {
        let began = self.near.or(self.far).map_or(0, |attempt| attempt.started_ns);
        format!("began {}", self.style.zone().dated(began))
    }

    /// The names of the posts, and the ends as each place has them.
    fn head(&self, out: &mut String) {
        let near = self.row.near;
        let row = |left: &str, middle: &str, right: &str| {
            let width = 2 * self.half + 3;
            let before = (width / 2).saturating_sub(middle.width() / 2).saturating_sub(left.width()).max(1);
            let used = left.width() + before + middle.width();
            let after = width.saturating_sub(used + right.width()).max(1);
            format!("{left}{:before$}{middle}{:after$}{right}", "", "")
        };
        let blank = SECONDS + 2;
        let names = row(near.name(), BETWEEN, near.other().name());
        let head = format!("{:>SECONDS$}  {names}  {:>SECONDS$}", "seconds", "seconds");
        line(out, self.style.endless(), "", &[Piece::new(head, TextTone::Faint)], "");
        let seen = |of: Option<&Attempt>, side: fn(&Attempt) -> String| of.map(side).unwrap_or_default();
        let ends: [fn(&Attempt) -> String; 2] =
            [|of| of.initiator.socket().to_string(), |of| format!("→ {}", of.responder.socket())];
        for side in ends {
            let text = format!("{:blank$}{}", "", row(&seen(self.near, side), "", &seen(self.far, side)));
            line(out, self.style.endless(), "", &[Piece::plain(text.trim_end())], "");
        }
    }

    fn rung(&self, out: &mut String, rung: &Rung<'_>) {
        let half = |half: Half<'_>| match half {
            Some((direction, certainty, label)) => shaft(label, direction, certainty, self.half),
            None => " ".repeat(self.half),
        };
        let [left, right] = rung.halves.map(half);
        let at = |time: Option<u64>| time.map(|ns| seconds(ns, 0)).unwrap_or_default();
        let [near, far] = rung.times.map(at);
        let begins = |half: Half<'_>, direction| matches!(half, Some((of, ..)) if of == direction);
        let from = if begins(rung.halves[0], OUT) { "├" } else { "│" };
        let to = if begins(rung.halves[1], BACK) { "┤" } else { "│" };
        let before = Piece::plain(format!("{near:>SECONDS$}  "));
        let shafts = Piece::new(format!("{from}{left}│{right}{to}"), rung.tone);
        let after = Piece::plain(if far.is_empty() { far } else { format!("  {far:>SECONDS$}") });
        line(out, self.style.endless(), "", &[before, shafts, after], "");
    }

    fn rungs(&self) -> Vec<Rung<'static>> {
        let mut rungs = vec![self.syn()];
        rungs.extend(self.syn_ack());
        rungs.extend(self.end());
        rungs
    }

    /// The SYN, which reached the far place unless it was lost between, or another took its place.
    fn syn(&self) -> Rung<'static> {
        use RungCertainty::{Lost, Seen};
        let right = match (self.row.outcome, self.far) {
            (Outcome::LostBetween(Segment::Syn), _) => Some((OUT, Lost, "")),
            (Outcome::AnsweredBetween, _) | (_, None) => None,
            (_, Some(_)) => Some((OUT, Seen, "")),
        };
        let is_lost = self.row.outcome == Outcome::LostBetween(Segment::Syn);
        Rung {
            halves: [self.near.map(|_| (OUT, Seen, "SYN seq=J")), right],
            times: [self.near.map(|_| 0), right.filter(|_| !is_lost).map(|_| 0)],
            tone: if is_lost { TextTone::Bad } else { TextTone::Plain },
        }
    }

    /// The SYN+ACK, or that none came.
    fn syn_ack(&self) -> Vec<Rung<'static>> {
        use RungCertainty::{Lost, Missing, Seen};
        let [at_near, at_far] = [self.near, self.far].map(|of| of.and_then(Attempt::syn_to_syn_ack_ns));
        let [near, far] = [self.near, self.far].map(|of| of.is_some_and(Attempt::is_answered));
        if self.row.outcome == Outcome::AnsweredBetween {
            let own = Rung {
                halves: [Some((BACK, Seen, "SYN+ACK seq=K")), None],
                times: [at_near, None],
                tone: TextTone::Plain,
            };
            let behind = self.far.map(|_| Rung {
                halves: [None, Some((OUT, Seen, "SYN seq=J'"))],
                times: [None, Some(0)],
                tone: TextTone::Plain,
            });
            let answer = far.then_some(Rung {
                halves: [None, Some((BACK, Seen, "SYN+ACK seq=K'"))],
                times: [None, at_far],
                tone: TextTone::Plain,
            });
            return [Some(own), behind, answer].into_iter().flatten().collect();
        }
        let is_lost = self.row.outcome == Outcome::LostBetween(Segment::SynAck);
        let halves = match (near, far) {
            _ if is_lost => [Some((BACK, Lost, "")), Some((BACK, Seen, "SYN+ACK seq=K"))],
            (true, true) => [Some((BACK, Seen, "")), Some((BACK, Seen, "SYN+ACK seq=K"))],
            (true, false) => [Some((BACK, Seen, "SYN+ACK seq=K")), None],
            (false, true) => [None, Some((BACK, Seen, "SYN+ACK seq=K"))],
            (false, false) if matches!(self.row.outcome, Outcome::LostIn(_)) => {
                [None, Some((BACK, Missing, "no SYN+ACK"))]
            }
            (false, false) => return Vec::new(),
        };
        let is_bad = is_lost || !far && !near;
        vec![Rung {
            halves,
            times: [at_near, at_far],
            tone: if is_bad { TextTone::Bad } else { TextTone::Plain },
        }]
    }

    /// The ACK that completed it, or what came in its place.
    fn end(&self) -> Option<Rung<'static>> {
        use RungCertainty::{Lost, Missing, Seen};
        let times = [self.near, self.far].map(|of| of.and_then(Attempt::connect_ns));
        let rung = |halves, times, tone| Some(Rung { halves, times, tone });
        let plain = Some((OUT, Seen, ""));
        match self.row.outcome {
            Outcome::Completed => rung([Some((OUT, Seen, "ACK")), plain], times, TextTone::Good),
            Outcome::LostBetween(Segment::Ack) => {
                rung([Some((OUT, Seen, "ACK")), Some((OUT, Lost, ""))], times, TextTone::Bad)
            }
            Outcome::LostIn(which) if which == self.row.near => {
                rung([Some((OUT, Missing, "no ACK")), None], [None; 2], TextTone::Bad)
            }
            Outcome::Ended(verdict) | Outcome::ResetBetween(verdict) => {
                rung(self.ended(verdict), [None; 2], TextTone::Bad)
            }
            Outcome::AnsweredBetween | Outcome::LostBetween(_) | Outcome::LostIn(_) => None,
            Outcome::Undecided(_) | Outcome::Alone => None,
        }
    }

    /// The segment or the error that ended it, at the places that saw it.
    fn ended(&self, verdict: Verdict) -> [Half<'static>; 2] {
        use RungCertainty::{Lost, Seen};
        let (direction, label) = match verdict {
            Verdict::InitiatorAborted => (OUT, "RST"),
            Verdict::Unreachable => (BACK, "ICMP unreachable"),
            Verdict::Refused | Verdict::ResponderAborted => (BACK, "RST"),
            Verdict::Completed
            | Verdict::Superseded
            | Verdict::HalfOpenExpired
            | Verdict::Evicted
            | Verdict::Untracked
            | Verdict::Opening
            | Verdict::HalfOpen
            | Verdict::Midstream
            | Verdict::OrphanSynAck => return [None; 2],
        };
        let [near, far] = [self.near, self.far].map(|of| of.is_some_and(|of| of.verdict == Some(verdict)));
        let [of_near, of_far] = match direction {
            OUT if near => [label, ""],
            OUT => ["", label],
            BACK if far => ["", label],
            BACK => [label, ""],
        };
        let half = |is_there, sender, label| match (is_there, sender) {
            (true, _) => Some((direction, Seen, label)),
            (false, true) => Some((direction, Lost, label)),
            (false, false) => None,
        };
        [
            half(near, far && direction == BACK, of_near),
            half(far, near && direction == OUT && self.far.is_some(), of_far),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::{draw_join, draw_joined};
    use crate::report::text::Style;
    use crate::testing::joined;

    /// A ladder of each way in which attempts are lost, and the lines above them.
    #[test]
    fn each_case_has_a_ladder() {
        insta::assert_snapshot!(draw_join(&joined(0), Style::plain(100)));
    }

    /// Two hours apart, and on a narrow terminal.
    #[test]
    fn clocks_that_differ_are_said() {
        let drawn = draw_join(&joined(7_200_000_000_000), Style::plain(60));
        let head: Vec<&str> = drawn.split("\n\n").next().into_iter().collect();
        insta::assert_snapshot!(head[0]);
    }

    #[test]
    fn an_attempt_is_a_line() {
        let joined = joined(0);
        let lines: String =
            joined.rows.iter().map(|row| draw_joined(&joined, row, Style::plain(80))).collect();
        insta::assert_snapshot!(lines);
    }
}
