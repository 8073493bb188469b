//! The answer of `handshake why`.
//!
//! ```text
//! 10.77.2.2:443 · nginx[1873], nginx.service · looked for 4 s at eth0
//! ✘ 61.2 % of 120 connections stay open, answered by nothing (no_syn_ack)
//! because   its accept queue is full: 129 of 128 waiting
//! not       a flood (41 of 41 repeat their SYN)
//! owner     the application: nginx[1873] of nginx.service accepts too slowly
//! next      ss -ltnp 'sport = :443'
//! ```

use handshake_agent::model::snapshot::Snapshot;

use super::layout::{Piece, Style, TextTone, line, words};
use super::{DOT, lost};
use crate::number::span;
use crate::why::{Outcome, WhyReport};

/// Draws the answer.
pub(crate) fn draw_why(report: &WhyReport<'_>, snapshot: &Snapshot, style: Style) -> String {
    let (evidence, answer) = (report.evidence, report.answer);
    let mut out = String::new();
    let service = evidence.service.map(|service| service.to_string());
    let subject = service.or_else(|| report.subject.clone()).unwrap_or_else(|| "all services".to_owned());
    // Beside the number, which people copy.
    let name = evidence.service.map(|service| style.names().service(service, false));
    let name = name.filter(|name| *name != subject).map(Piece::plain);
    let mut head = vec![Piece::new(subject, TextTone::Strong)];
    head.extend(name);
    let queue = evidence.queue.iter().flatten().filter(|_| evidence.service.is_some());
    head.extend(queue.filter_map(|queue| queue.whose(", ")).map(Piece::plain));
    head.push(Piece::plain(format!("looked for {} at {}", span(evidence.looked_ns), report.interfaces)));
    line(&mut out, style, "", &head, DOT);
    let (sign, tone) = match answer.outcome {
        Outcome::Healthy => ("✔", TextTone::Good),
        Outcome::Trouble => ("✘", TextTone::Bad),
        Outcome::NotEnough => ("–", TextTone::Strong),
    };
    let headline = std::iter::once(Piece::new(sign, tone));
    let headline = headline.chain(answer.headline.split(' ').map(|word| Piece::new(word, tone)));
    line(&mut out, style, "", &headline.collect::<Vec<_>>(), " ");
    lost(&mut out, snapshot, None, style);
    for (label, sentences) in [("because", &answer.because), ("not", &answer.not)] {
        list(&mut out, label, sentences, style);
    }
    list(&mut out, "owner", answer.owner.as_slice(), style);
    // A command is never broken: people copy it.
    list(&mut out, "next", &answer.next, style.endless());
    out
}

fn list(out: &mut String, label: &str, sentences: &[String], style: Style) {
    for (at, sentence) in sentences.iter().enumerate() {
        line(out, style, if at == 0 { label } else { " " }, &words(sentence), " ");
    }
}
