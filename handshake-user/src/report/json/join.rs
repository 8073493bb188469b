//! The objects of two joined accounts: a line for each attempt, and what they come to.

use std::io::{self, Write};

use handshake_common::verdict::{Cause, Seat, Verdict};
use handshake_join::{
    Account, Attempt, ClockFinding, Inexact, Joined, Outcome, Row, Segment, Times, Translation, Which,
};
use serde_json::{Map, Value, json};

use super::{SCHEMA, end, line, put_known};
use crate::time::rfc3339;

/// Translations that are listed: the most frequent.
const TRANSLATIONS: usize = 20;

/// Writes what the attempts come to, on a line of its own.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_join(out: &mut dyn Write, joined: &Joined) -> io::Result<()> {
    let totals = &joined.totals;
    let between = |segment: Segment| totals.lost_between[segment as usize];
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("type", json!("join"));
    put("matched", json!(totals.matched));
    put("translated", json!(totals.translated));
    put("only_first", json!(totals.only[0]));
    put("only_second", json!(totals.only[1]));
    put("completed", json!(totals.completed));
    put("lost_between", Segment::ALL.iter().map(|each| (each.name(), json!(between(*each)))).collect());
    put("lost_in_first", json!(totals.lost_in[0]));
    put("lost_in_second", json!(totals.lost_in[1]));
    put("schema", json!(SCHEMA));
    put("answered_between", json!(totals.answered_between));
    put("ended", json!(totals.ended.values().sum::<u64>()));
    put("reset_between", json!(totals.reset_between));
    put("undecided", json!(totals.undecided.iter().sum::<u64>()));
    put("rewritten", json!(totals.rewritten));
    put("unclear", json!(totals.unclear));
    put("client", json!(joined.usually_near().name()));
    put("exact", json!(joined.is_exact()));
    put("inexact", Which::BOTH.iter().flat_map(|which| inexact(joined, *which)).collect());
    for (which, account) in Which::BOTH.into_iter().zip(&joined.accounts) {
        put(which.name(), side(account));
    }
    put("clock", clock(joined));
    put(
        "one_way",
        Value::Object(
            [Segment::Syn, Segment::SynAck]
                .iter()
                .zip(&joined.one_way)
                .map(|(segment, of)| (segment.name().to_owned(), times(of)))
                .collect(),
        ),
    );
    put("round_trip", times(&joined.round_trip));
    put("translations", translations(joined));
    line(out, &Value::Object(object))
}

/// Writes an attempt, on a line of its own.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write_joined(out: &mut dyn Write, joined: &Joined, row: &Row) -> io::Result<()> {
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("joined"));
    object.insert("outcome".to_owned(), json!(row.outcome.name()));
    match row.outcome {
        Outcome::LostBetween(segment) => put_known(&mut object, "segment", Some(segment.name())),
        Outcome::Ended(verdict) | Outcome::ResetBetween(verdict) => {
            put_known(&mut object, "ended_by", Some(verdict.name()));
        }
        Outcome::Undecided(doubt) => put_known(&mut object, "doubt", Some(doubt.name())),
        Outcome::Completed | Outcome::LostIn(_) | Outcome::AnsweredBetween | Outcome::Alone => {}
    }
    let [first, second] = joined.sides(row);
    let both = first.zip(second);
    object.insert("matched".to_owned(), json!(row.is_matched()));
    put_known(&mut object, "translated", both.map(|(first, second)| !first.has_ends_of(second)));
    put_known(&mut object, "rewritten", both.map(|_| row.is_rewritten));
    object.insert("client".to_owned(), json!(row.near.name()));
    for (which, attempt) in Which::BOTH.into_iter().zip([first, second]) {
        put_known(&mut object, which.name(), attempt.map(seen));
    }
    let [syn, syn_ack] = joined.one_way_ns(row);
    put_known(&mut object, "syn_one_way_ns", syn);
    put_known(&mut object, "syn_ack_one_way_ns", syn_ack);
    put_known(&mut object, "round_trip_ns", joined.round_trip_ns(row));
    line(out, &Value::Object(object))
}

/// An attempt as an account has it.
fn seen(attempt: &Attempt) -> Value {
    let mut object = Map::new();
    object.insert("initiator".to_owned(), end(attempt.initiator.socket()));
    object.insert("responder".to_owned(), end(attempt.responder.socket()));
    put_known(&mut object, "verdict", attempt.verdict.map(Verdict::name));
    put_known(&mut object, "cause", attempt.cause.map(Cause::name));
    put_known(&mut object, "seat", attempt.seat.map(Seat::name));
    object.insert("isn_initiator".to_owned(), json!(attempt.j));
    put_known(&mut object, "isn_responder", attempt.k());
    object.insert("syn".to_owned(), json!(attempt.syn));
    object.insert("syn_ack".to_owned(), json!(attempt.syn_ack));
    put_known(&mut object, "syn_to_syn_ack_ns", attempt.syn_to_syn_ack_ns());
    put_known(&mut object, "connect_ns", attempt.connect_ns());
    object.insert("started".to_owned(), json!(rfc3339(attempt.started_ns)));
    Value::Object(object)
}

fn side(account: &Account) -> Value {
    let mut object = Map::new();
    object.insert("path".to_owned(), json!(account.name));
    object.insert("attempts".to_owned(), json!(account.attempts.len()));
    let span = account.span();
    put_known(&mut object, "from", span.map(|span| rfc3339(span.from_ns)));
    put_known(&mut object, "to", span.map(|span| rfc3339(span.to_ns)));
    Value::Object(object)
}

fn inexact(joined: &Joined, which: Which) -> Vec<Value> {
    let row = |Inexact { reason, count, sentence }: &Inexact| json!({"account": which.name(), "reason": reason, "count": count, "sentence": sentence});
    joined.accounts[which as usize].inexact.iter().map(row).collect()
}

/// How far the second clock is ahead.
fn clock(joined: &Joined) -> Value {
    let mut object = Map::new();
    let finding = joined.clocks.finding();
    object.insert("finding".to_owned(), json!(finding.name()));
    let bounds = match finding {
        ClockFinding::Unknown => [None; 2],
        ClockFinding::About(about) => [Some(about); 2],
        ClockFinding::Agree(_) => [joined.clocks.least_ns, joined.clocks.most_ns],
        ClockFinding::Differ(least, most) | ClockFinding::Changed(least, most) => [Some(least), Some(most)],
    };
    put_known(&mut object, "ahead_at_least_ns", bounds[0]);
    put_known(&mut object, "ahead_at_most_ns", bounds[1]);
    Value::Object(object)
}

fn times(times: &Times) -> Value {
    let mut object = Map::new();
    object.insert("count".to_owned(), json!(times.count()));
    for (name, percent) in [("p50_ns", 50), ("p90_ns", 90), ("p99_ns", 99), ("max_ns", 100)] {
        put_known(&mut object, name, times.percentile(percent));
    }
    Value::Object(object)
}

fn translations(joined: &Joined) -> Value {
    let row = |(of, attempts): (&Translation, u64)| {
        let mut object = Map::new();
        let pair = |[from, to]: [Value; 2]| json!({"from": from, "to": to});
        let addresses =
            of.initiator.map(|initiator| pair(initiator.map(|address| json!(address.to_string()))));
        put_known(&mut object, "initiator", addresses);
        let sockets = of.responder.map(|responder| pair(responder.map(|each| end(each.socket()))));
        put_known(&mut object, "responder", sockets);
        object.insert("attempts".to_owned(), json!(attempts));
        Value::Object(object)
    };
    joined.most_translations(TRANSLATIONS).into_iter().map(row).collect()
}
