//! Holds handshake's verdict against the kernel's truth, and names what an observer cannot know.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::client::{Answer, Conversation, Sent};
use super::host::Truth;
use super::script::{Harm, SPOKEN, Stamp};
use super::setting::{Cookies, Setting};
use crate::frame::flag;

/// The direction of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// handshake saw a completion that the kernel does not know.
    TooMany,
    /// The kernel established a connection that handshake did not see complete.
    TooFew,
}

/// What an observer cannot know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A segment whose timestamps the kernel rejects.
    OldTimestamp,
    /// A third segment beyond the real receive window, but at most 65,535 bytes after J+1.
    BeyondWindow,
    /// A segment with a wrong checksum.
    WrongChecksum,
    /// A segment that is lost behind the observer.
    Lost,
    /// A segment in fragments: its header in two of them, its tail lost, a SYN's data of unknown length.
    Fragmented,
    /// A RST inside the window, but not at J+1.
    RstInWindow,
    /// A SYN inside the window.
    InWindowSyn,
    /// A SYN cookie: it holds for J+1 alone, outlives what ends a request, and its last bits are free.
    Cookie,
}

impl Class {
    /// Every class, those that a segment explains by itself before those that need another.
    pub const ALL: [Self; 8] = [
        Self::OldTimestamp,
        Self::BeyondWindow,
        Self::WrongChecksum,
        Self::Lost,
        Self::Fragmented,
        Self::InWindowSyn,
        Self::Cookie,
        Self::RstInWindow,
    ];

    /// The class of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OldTimestamp => "old_timestamp",
            Self::BeyondWindow => "beyond_window",
            Self::WrongChecksum => "wrong_checksum",
            Self::Lost => "lost",
            Self::Fragmented => "fragmented",
            Self::RstInWindow => "rst_in_window",
            Self::InWindowSyn => "in_window_syn",
            Self::Cookie => "cookie",
        }
    }

    /// Does it explain that the kernel does not take the segment `third`, which seems to prove that the
    /// SYN+ACK `answer` arrived? `before` are the segments sent before it.
    fn spoils(self, third: &Sent, answer: &Answer, before: &[Sent], case: &Case<'_>) -> bool {
        let ahead = third.seq.wrapping_sub(answer.ack);
        // What came between the SYN and the third segment.
        let first = case.conversation.first_after(answer);
        let of_request = |s: &Sent| s.shot.has(flag::SYN) && s.seq.wrapping_add(1) == first;
        let since = before.iter().position(of_request).map_or(before.len(), |at| at + 1);
        let came = |test: &dyn Fn(&Sent) -> bool| before[since..].iter().any(|s| s.shot.arrives() && test(s));
        // The third segment itself, or a SYN that seems to take up again what a RST has ended.
        let unheard = |harm: Harm| {
            let mut since_rst = before.iter().skip_while(|s| !s.shot.has(flag::RST));
            third.shot.harm == harm || since_rst.any(|s| of_request(s) && s.shot.harm == harm)
        };
        match self {
            Self::OldTimestamp => third.shot.stamp != Stamp::Fresh,
            Self::BeyondWindow => (u32::from(answer.window)..=REACH).contains(&ahead),
            Self::WrongChecksum => !case.verified && unheard(Harm::Checksum),
            Self::Lost => unheard(Harm::Lost),
            Self::Fragmented => {
                let unseen = |s: &Sent| s.shot.harm == Harm::SplitHeader;
                unheard(Harm::LostTail)
                    || before.iter().any(|s| unseen(s) && (s.shot.has(flag::RST) || s.shot.has(flag::SYN)))
            }
            Self::RstInWindow => {
                came(&|s| s.shot.has(flag::RST) && s.seq != answer.ack && is_in_window(s, answer))
            }
            Self::InWindowSyn => came(&|s| {
                // The request's own SYN is answered again.
                s.shot.has(flag::SYN) && !of_request(s) && is_in_window(s, answer)
            }),
            Self::Cookie => match case.setting.cookies {
                Cookies::Off => false,
                Cookies::On => {
                    let answers = &case.conversation.answers;
                    ahead != 0
                        || answers.iter().any(|a| a.ack != answer.ack)
                        || case.has_same_k_again(answer, before)
                }
                Cookies::Always => ahead != 0 || case.has_same_k_again(answer, before),
            },
        }
    }

    /// Does it explain that handshake does not take for the proof what the kernel takes: the segment `third`
    /// for the SYN+ACK `answer`?
    fn hides(self, third: &Sent, answer: &Answer, before: &[Sent], case: &Case<'_>) -> bool {
        // A RST that only handshake sees ends the attempt, and another SYN then begins one.
        let ends = |s: &Sent| s.shot.has(flag::RST) || s.shot.has(flag::SYN) || s.shot.has(flag::FIN);
        let misled = |test: &dyn Fn(&Sent) -> bool| before.iter().any(|s| ends(s) && test(s));
        match self {
            Self::OldTimestamp => misled(&|s| s.shot.stamp != Stamp::Fresh),
            Self::WrongChecksum => !case.verified && misled(&|s| s.shot.harm == Harm::Checksum),
            Self::Lost => misled(&|s| s.shot.harm == Harm::Lost),
            Self::Fragmented => {
                let data_of_syn = |s: &Sent| {
                    let fast_open = s.shot.has(flag::SYN) && case.setting.fast_open;
                    s.shot.harm == Harm::Fragments && fast_open
                };
                let unseen = |s: &Sent| s.shot.harm == Harm::SplitHeader;
                // The first fragment does not say where the data ends.
                unseen(third)
                    || third.shot.harm == Harm::Fragments
                    || before.iter().any(|s| unseen(s) || data_of_syn(s))
                    || misled(&|s| s.shot.harm == Harm::LostTail)
            }
            Self::Cookie if case.setting.cookies == Cookies::Off => false,
            Self::Cookie => {
                let syns: BTreeSet<u32> =
                    before.iter().filter(|s| s.shot.has(flag::SYN)).map(|s| s.seq).collect();
                // Of three SYNs that were answered two are kept.
                syns.len() > 2 && case.seems_proof(third, answer) || outlives(third, answer, before, case)
            }
            Self::BeyondWindow | Self::RstInWindow | Self::InWindowSyn => false,
        }
    }
}

/// Is some of a segment inside a SYN+ACK's window (tcp_in_window in net/ipv4/tcp_minisocks.c)?
fn is_in_window(sent: &Sent, answer: &Answer) -> bool {
    let ahead = sent.seq.wrapping_sub(answer.ack);
    let flags = u32::from(sent.shot.has(flag::SYN)) + u32::from(sent.shot.has(flag::FIN));
    let end = ahead.wrapping_add(u32::from(sent.shot.data) + flags);
    ahead <= u32::from(answer.window) || ahead.cast_signed() < 0 && end.cast_signed() > 0
}

/// How far after a SYN+ACK's number handshake takes a third segment: a SYN+ACK's window is never scaled.
const REACH: u32 = 0xffff;

/// A conversation that is judged.
pub(super) struct Case<'a> {
    pub(super) conversation: &'a Conversation,
    pub(super) truth: &'a Truth,
    pub(super) setting: Setting,
    /// Does handshake verify checksums?
    pub(super) verified: bool,
}

impl Case<'_> {
    /// Is there a third segment, and a SYN+ACK before it, for which this holds?
    fn any(&self, test: impl Fn(&Sent, &Answer, &[Sent]) -> bool) -> bool {
        self.conversation.sent.iter().enumerate().filter(|(_, sent)| sent.shot.is_ack()).any(|(at, third)| {
            let before = &self.conversation.sent[..at];
            self.conversation.answers.iter().any(|answer| test(third, answer, before))
        })
    }

    /// May handshake take `third` for the proof that `answer` arrived?
    fn seems_proof(&self, third: &Sent, answer: &Answer) -> bool {
        let ahead = third.seq.wrapping_sub(answer.ack);
        let behind = u32::from(third.shot.data) + REACH;
        let acknowledged = third.ack.wrapping_sub(answer.seq.wrapping_add(1));
        (ahead <= REACH || ahead.wrapping_neg() <= behind) && acknowledged <= SPOKEN
    }

    /// Was a SYN answered with the same K once more, after a connection had ended? What acknowledged the
    /// first seems to acknowledge the second.
    fn has_same_k_again(&self, answer: &Answer, before: &[Sent]) -> bool {
        let same = |a: &&Answer| (a.seq, a.ack) == (answer.seq, answer.ack);
        let has_ended = before.iter().any(|s| s.shot.has(flag::RST) || s.shot.has(flag::FIN));
        has_ended && self.conversation.answers.iter().filter(same).count() > 1
    }

    /// Did the initiator send a SYN+ACK that Linux takes for the third segment? It cuts off the SYN of a
    /// segment at J, and takes the data behind it (tcp_check_req in net/ipv4/tcp_minisocks.c).
    fn has_cut_syn(&self) -> bool {
        let fits = |sent: &Sent, answer: &Answer| {
            let after = sent.seq.wrapping_add(1);
            after == answer.ack
                && (sent.shot.data > 0 || sent.shot.has(flag::FIN))
                && sent.ack.wrapping_sub(answer.seq.wrapping_add(1)) <= SPOKEN
        };
        let flags = flag::SYN | flag::ACK | flag::RST;
        let mut sent = self.conversation.sent.iter();
        sent.any(|sent| {
            sent.shot.arrives()
                && sent.shot.flags & flags == flag::SYN | flag::ACK
                && self.conversation.answers.iter().any(|answer| fits(sent, answer))
        })
    }

    /// What explains a difference of this direction.
    fn class(&self, direction: Direction) -> Option<Class> {
        let by_segment = self.class_by_segment(direction);
        let is_cut = || direction == Direction::TooFew && self.has_cut_syn();
        by_segment.or_else(|| is_cut().then_some(Class::InWindowSyn))
    }

    /// The first class in which a third segment explains it.
    fn class_by_segment(&self, direction: Direction) -> Option<Class> {
        Class::ALL.into_iter().find(|class| match direction {
            Direction::TooMany => self.any(|third, answer, before| {
                self.seems_proof(third, answer) && class.spoils(third, answer, before, self)
            }),
            Direction::TooFew => self.any(|third, answer, before| {
                let arrives =
                    third.shot.arrives() && (*class == Class::Cookie || self.seems_proof(third, answer));
                arrives && class.hides(third, answer, before, self)
            }),
        })
    }
}

/// Does a segment carry a cookie that an observer takes for no third segment, or for one too late? A cookie
/// is a difference of numbers whose last bits are an index below four (check_tcp_syn_cookie in
/// net/ipv4/syncookies.c). It is forgotten with neither a RST, a FIN nor another SYN.
fn outlives(third: &Sent, answer: &Answer, before: &[Sent], case: &Case<'_>) -> bool {
    let number = |sent: &Sent| sent.ack.wrapping_sub(answer.seq).wrapping_sub(1);
    let of_cookie = number(third).wrapping_sub(third.seq.wrapping_sub(answer.ack));
    if of_cookie.cast_signed().unsigned_abs() > 3 {
        return false;
    }
    let is_exact = |sent: &Sent| {
        let answers = &case.conversation.answers;
        answers.iter().any(|a| a.ack == sent.seq && a.seq.wrapping_add(1) == sent.ack)
    };
    // The listener answers with RST what carries no cookie.
    let ends = |s: &Sent| {
        s.shot.has(flag::RST)
            || s.shot.has(flag::FIN)
            || s.shot.has(flag::ACK) && !is_exact(s)
            || s.shot.flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK
    };
    let has_ended = before.iter().any(ends);
    let syns: BTreeSet<u32> = before.iter().filter(|s| s.shot.has(flag::SYN)).map(|s| s.seq).collect();
    let answers = &case.conversation.answers;
    let after = |answer: &Answer| case.conversation.first_after(answer);
    let two_ks = answers.iter().any(|a| answers.iter().any(|b| a.seq != b.seq && after(a) == after(b)));
    // Data after a FIN is answered like what finds no connection.
    let mut since_fin = case.conversation.sent.iter().skip_while(|s| !s.shot.has(flag::FIN)).skip(1);
    let has_more = since_fin.any(|s| s.shot.is_ack() && s.shot.data > 0);
    !is_exact(third)
        || has_ended && (case.truth.established > 1 || syns.len() > 1 || has_more)
        || two_ks && syns.len() > 1
}

/// What comparing one account of a conversation with the kernel's gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Agreed,
    Explained(Direction, Class),
    Unexplained(Direction),
}

/// Compares the completions of a conversation with what the kernel established.
pub(super) fn judge(case: &Case<'_>, completed: i64) -> Finding {
    let established = i64::try_from(case.truth.established).unwrap_or(i64::MAX);
    let direction = match completed.cmp(&established) {
        Ordering::Equal => return Finding::Agreed,
        Ordering::Less => Direction::TooFew,
        Ordering::Greater => Direction::TooMany,
    };
    case.class(direction)
        .map_or(Finding::Unexplained(direction), |class| Finding::Explained(direction, class))
}

/// How often each class explained a difference, by direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts(BTreeMap<(Class, Direction), u64>);

impl ClassCounts {
    pub(super) fn add(&mut self, direction: Direction, class: Class) {
        *self.0.entry((class, direction)).or_default() += 1;
    }

    /// The number of a class.
    #[must_use]
    pub fn of(&self, direction: Direction, class: Class) -> u64 {
        self.0.get(&(class, direction)).copied().unwrap_or_default()
    }

    /// The number of all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// A line per class: `cookie  34 too many  12 too few`.
impl fmt::Display for ClassCounts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for class in Class::ALL {
            let [many, few] =
                [Direction::TooMany, Direction::TooFew].map(|direction| self.of(direction, class));
            if many + few != 0 {
                writeln!(formatter, "  {:<16}{many:>8} too many{few:>8} too few", class.name())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Case, Class, Direction, Finding, judge};
    use crate::duel::client::{Answer, Conversation, Sent};
    use crate::duel::host::Truth;
    use crate::duel::script::{Harm, Script, Shot, Stamp};
    use crate::duel::setting::{Cookies, Setting};
    use crate::frame::flag;

    const J: u32 = u32::MAX - 2;
    const K: u32 = 7;
    const OFF: Setting = Setting { cookies: Cookies::Off, fast_open: false };

    fn segment(flags: u8, seq: u32) -> Sent {
        let shot = Shot { flags, of: 0, seq: 0, ack: 0, data: 0, stamp: Stamp::Fresh, harm: Harm::None };
        Sent { shot, wave: 0, seq: J.wrapping_add(seq), ack: K + 1 }
    }

    fn harmed(sent: Sent, harm: Harm) -> Sent {
        Sent { shot: Shot { harm, ..sent.shot }, ..sent }
    }

    /// What is found where handshake saw `completed` and the kernel `established`, after a SYN, its SYN+ACK
    /// and these segments.
    fn found(setting: Setting, more: &[Sent], completed: i64, established: u64) -> Finding {
        let mut conversation = Conversation::new(Script::draw(1, 0, 256));
        conversation.sent.push(segment(flag::SYN, 0));
        conversation.sent.extend_from_slice(more);
        conversation.answers.push(Answer { seq: K, ack: J.wrapping_add(1), window: 64_240, stamp: None });
        let truth = Truth { established, ..Truth::default() };
        judge(&Case { conversation: &conversation, truth: &truth, setting, verified: false }, completed)
    }

    #[test]
    fn equal_numbers_agree() {
        assert_eq!(found(OFF, &[segment(flag::ACK, 1)], 1, 1), Finding::Agreed);
        assert_eq!(found(OFF, &[], 0, 0), Finding::Agreed);
    }

    #[test]
    fn nothing_explains_a_difference_of_an_honest_conversation() {
        let all = [OFF, Setting { cookies: Cookies::Always, fast_open: true }];
        for setting in all {
            let third = [segment(flag::ACK, 1)];
            assert_eq!(found(setting, &third, 1, 0), Finding::Unexplained(Direction::TooMany));
            assert_eq!(found(setting, &third, 0, 1), Finding::Unexplained(Direction::TooFew));
            assert_eq!(found(setting, &[], 1, 0), Finding::Unexplained(Direction::TooMany));
        }
    }

    /// Each class explains the direction that it can explain, and where its segment comes after the third
    /// segment it explains nothing.
    #[test]
    fn a_class_explains_one_direction_in_one_order() {
        let third = segment(flag::ACK, 1);
        let old = Sent { shot: Shot { stamp: Stamp::Old, ..third.shot }, ..third };
        let rows = [
            (Class::OldTimestamp, vec![old]),
            (Class::BeyondWindow, vec![segment(flag::ACK, 65_000)]),
            (Class::WrongChecksum, vec![harmed(third, Harm::Checksum)]),
            (Class::Lost, vec![harmed(third, Harm::Lost)]),
            (Class::Fragmented, vec![harmed(third, Harm::LostTail)]),
            (Class::RstInWindow, vec![segment(flag::RST, 100), third]),
            (Class::InWindowSyn, vec![segment(flag::SYN, 100), third]),
        ];
        for (class, sent) in rows {
            assert_eq!(found(OFF, &sent, 1, 0), Finding::Explained(Direction::TooMany, class));
            assert_eq!(found(OFF, &sent, 0, 1), Finding::Unexplained(Direction::TooFew), "{class:?}");
            if let [first, second] = sent[..] {
                let late = found(OFF, &[second, first], 1, 0);
                assert_eq!(late, Finding::Unexplained(Direction::TooMany), "{class:?}");
            }
        }
        let exact = [segment(flag::RST, 1), third];
        assert_eq!(
            found(OFF, &exact, 1, 0),
            Finding::Unexplained(Direction::TooMany),
            "a RST at J+1 is known"
        );
    }

    /// A SYN that reaches only the observer takes up again what a RST has ended.
    #[test]
    fn a_lost_syn_explains_a_completion_after_a_rst() {
        let (rst, syn) = (segment(flag::RST, 1), harmed(segment(flag::SYN, 0), Harm::Lost));
        let many = Finding::Explained(Direction::TooMany, Class::Lost);
        assert_eq!(found(OFF, &[rst, syn, segment(flag::ACK, 1)], 1, 0), many);
        let early = found(OFF, &[syn, rst, segment(flag::ACK, 1)], 1, 0);
        assert_eq!(early, Finding::Unexplained(Direction::TooMany));
    }

    /// What Linux takes for the third segment, though it has SYN.
    #[test]
    fn a_syn_ack_with_data_explains_a_missing_completion() {
        let few = Finding::Explained(Direction::TooFew, Class::InWindowSyn);
        let crossed = segment(flag::SYN | flag::ACK, 0);
        let full = Sent { shot: Shot { data: 9, ..crossed.shot }, ..crossed };
        assert_eq!(found(OFF, &[full], 0, 1), few);
        for other in [crossed, Sent { seq: J.wrapping_add(1), ..full }, Sent { ack: K + 70_000, ..full }] {
            assert_eq!(found(OFF, &[other], 0, 1), Finding::Unexplained(Direction::TooFew));
        }
        assert_eq!(found(OFF, &[full], 1, 0), Finding::Unexplained(Direction::TooMany));
    }

    #[test]
    fn a_hidden_proof_explains_a_missing_completion() {
        let split = harmed(segment(flag::ACK, 1), Harm::SplitHeader);
        let few = Finding::Explained(Direction::TooFew, Class::Fragmented);
        assert_eq!(found(OFF, &[split], 0, 1), few);
    }

    #[test]
    fn a_cookie_explains_nothing_where_none_is_sent() {
        let always = Setting { cookies: Cookies::Always, fast_open: false };
        let (third, again) = (segment(flag::ACK, 1), segment(flag::ACK, 1));
        let twice = [third, segment(flag::RST, 1), again];
        assert_eq!(found(always, &twice, 1, 2), Finding::Explained(Direction::TooFew, Class::Cookie));
        assert_eq!(found(OFF, &twice, 1, 2), Finding::Unexplained(Direction::TooFew));
        let loose = Sent { ack: K, ..third };
        assert_eq!(found(always, &[loose], 0, 1), Finding::Explained(Direction::TooFew, Class::Cookie));
        let far = Sent { ack: K + 9, ..third };
        assert_eq!(found(always, &[far], 0, 1), Finding::Unexplained(Direction::TooFew));
        let ahead = [segment(flag::ACK, 5)];
        assert_eq!(found(always, &ahead, 1, 0), Finding::Explained(Direction::TooMany, Class::Cookie));
    }
}
