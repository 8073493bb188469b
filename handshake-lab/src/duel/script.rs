//! The script of a conversation: which segments an adversary's client sends, drawn from a seed.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use handshake_common::random::split_mix;

use crate::frame::flag;

/// A random number generator: a seed gives the same scripts always.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        split_mix(&mut self.0)
    }

    /// A number of 32 bits.
    fn word(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.next().to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// A number in `low..=high`.
    fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.word() % (high - low + 1)
    }

    /// A length of a segment's data.
    fn length(&mut self, low: u16, high: u16) -> u16 {
        low + u16::try_from(self.word() % u32::from(high - low + 1)).unwrap_or_default()
    }

    fn index(&mut self, below: usize) -> usize {
        let below = u64::try_from(below.max(1)).unwrap_or(1);
        usize::try_from(self.next() % below).unwrap_or_default()
    }

    /// True once in `times`.
    fn once_in(&mut self, times: u32) -> bool {
        self.word().is_multiple_of(times)
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.index(among.len())]
    }
}

/// Timestamps of a segment (RFC 7323 §3), where the conversation has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// Later than those before, and it echoes the latest SYN+ACK's.
    Fresh,
    /// A hundred seconds before the SYN's: PAWS rejects it.
    Old,
    /// It echoes a time at which the server sent nothing.
    WrongEcho,
}

/// What happens to a segment on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// Nothing.
    None,
    /// Its TCP checksum is wrong.
    Checksum,
    /// It is lost behind the observer: its IP header's checksum is wrong.
    Lost,
    /// Two IP fragments, the whole TCP header in the first.
    Fragments,
    /// Two IP fragments, the first of which ends within the TCP header.
    SplitHeader,
    /// Of two IP fragments only the first arrives, with the whole TCP header.
    LostTail,
}

/// A segment of a script. Its numbers are relative to those of the SYN that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shot {
    /// TCP flags.
    pub(super) flags: u8,
    /// Which J of [`Script::isns`].
    pub(super) of: usize,
    /// Distance from J for a SYN, else from what the SYN+ACK acknowledged; modulo 2³².
    pub(super) seq: u32,
    /// Distance of the acknowledgement number from K + 1, modulo 2³²; counts with the flag ACK.
    pub(super) ack: u32,
    /// Bytes of data.
    pub(super) data: u16,
    /// Its timestamps.
    pub(super) stamp: Stamp,
    /// What happens to it.
    pub(super) harm: Harm,
}

impl Shot {
    const fn new(flags: u8, of: usize, seq: u32) -> Self {
        Self { flags, of, seq, ack: 0, data: 0, stamp: Stamp::Fresh, harm: Harm::None }
    }

    const fn syn(of: usize) -> Self {
        Self::new(flag::SYN, of, 0)
    }

    const fn ack(of: usize) -> Self {
        Self::new(flag::ACK, of, 0)
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Does the server's TCP receive it?
    pub(super) const fn arrives(&self) -> bool {
        !matches!(self.harm, Harm::Checksum | Harm::Lost | Harm::LostTail)
    }

    /// Could it be a third segment: ACK, neither SYN nor RST?
    pub(super) const fn is_ack(&self) -> bool {
        self.flags & (flag::ACK | flag::SYN | flag::RST) == flag::ACK
    }
}

/// The number as a distance: `+5`, `-7`, nothing for 0.
fn distance(formatter: &mut fmt::Formatter<'_>, number: u32) -> fmt::Result {
    match number.cast_signed() {
        0 => Ok(()),
        signed => write!(formatter, "{signed:+}"),
    }
}

/// `ACK J'+1+5 of K'+1, 10 bytes, wrong checksum`
impl fmt::Display for Shot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(flag::SYN, "SYN"), (flag::FIN, "FIN"), (flag::RST, "RST"), (flag::ACK, "ACK")];
        let set: Vec<&str> = names.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| *name).collect();
        let prime = ["", "'", "''"][self.of.min(2)];
        let next = if self.has(flag::SYN) { "" } else { "+1" };
        write!(formatter, "{} J{prime}{next}", set.join("+"))?;
        distance(formatter, self.seq)?;
        if self.has(flag::ACK) {
            write!(formatter, " of K{prime}+1")?;
            distance(formatter, self.ack)?;
        }
        if self.data != 0 {
            write!(formatter, ", {} bytes", self.data)?;
        }
        formatter.write_str(match self.stamp {
            Stamp::Fresh => "",
            Stamp::Old => ", old timestamp",
            Stamp::WrongEcho => ", wrong echo",
        })?;
        formatter.write_str(match self.harm {
            Harm::None => "",
            Harm::Checksum => ", wrong checksum",
            Harm::Lost => ", lost",
            Harm::Fragments => ", in fragments",
            Harm::SplitHeader => ", header in two fragments",
            Harm::LostTail => ", first fragment only",
        })
    }
}

/// A conversation's script. The segments of a wave are sent back to back; between two waves the server
/// answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// Its number.
    pub(super) stream: u64,
    /// The client.
    pub(super) client: SocketAddrV4,
    /// J, and other Js.
    pub(super) isns: [u32; 3],
    /// What stands for a K that is not known.
    pub(super) guess: u32,
    /// The first timestamp, if the client sends timestamps.
    pub(super) stamps: Option<u32>,
    /// Does the client scale windows?
    pub(super) scales: bool,
    /// The segments by wave.
    pub(super) waves: Vec<Vec<Shot>>,
}

/// Bytes that the server sends to some clients as soon as it has accepted.
pub(super) const SPOKEN: u32 = 100;
/// The beginning of the clients' addresses.
pub(super) const CLIENTS: [u8; 2] = [10, 99];
/// The most waves of a script.
pub(super) const MOST_WAVES: usize = 12;

impl Script {
    /// The script of conversation `stream`; its client is the `place`-th of a network.
    pub(super) fn draw(seed: u64, stream: u64, place: u16) -> Self {
        let mut random = Random(seed);
        let mut random = Random(random.next() ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        let [high, low] = place.to_be_bytes();
        let port = random.between(1024, 65_535);
        let client = SocketAddrV4::new(
            Ipv4Addr::new(CLIENTS[0], CLIENTS[1], high, low),
            u16::try_from(port).unwrap_or(1024),
        );
        let isns = [(); 3].map(|()| match random.index(8) {
            0 => u32::MAX - random.between(0, 70_000),
            _ => random.word(),
        });
        let stamps = random.once_in(2).then(|| random.word());
        let (guess, scales) = (random.word(), random.once_in(2));
        let mut script = Self { stream, client, isns, guess, stamps, scales, waves: Vec::new() };
        script.converse(&mut random);
        let oddities = random.pick(&[0, 0, 1, 1, 1, 1, 2, 2, 3, 4]);
        for _ in 0..oddities {
            if script.waves.len() < MOST_WAVES {
                script.add_oddity(&mut random);
            }
        }
        script
    }

    /// Does the server send [`SPOKEN`] bytes to this client?
    pub(super) fn is_spoken_to(client: SocketAddrV4) -> bool {
        client.port().is_multiple_of(4)
    }

    /// An honest conversation.
    fn converse(&mut self, random: &mut Random) {
        let data = if random.once_in(4) { random.length(1, 1200) } else { 0 };
        self.waves.push(vec![Shot { data, ..Shot::syn(0) }]);
        let third = match random.index(16) {
            0 => return,
            1..4 => Shot { data: random.length(1, 1200), ..Shot::ack(0) },
            4 => Shot { flags: flag::ACK | flag::FIN, ..Shot::ack(0) },
            _ => Shot::ack(0),
        };
        self.waves.push(vec![third]);
        let after = u32::from(third.data) + u32::from(third.has(flag::FIN));
        let data = if random.once_in(3) { random.length(1, 1200) } else { 0 };
        if data != 0 {
            self.waves.push(vec![Shot { seq: after, data, ..Shot::ack(0) }]);
        }
        let end = Shot { seq: after + u32::from(data), ..Shot::ack(0) };
        match random.index(8) {
            0 => self.waves.push(vec![Shot { flags: flag::ACK | flag::FIN, ..end }]),
            1 => self.waves.push(vec![Shot { flags: flag::RST, ..end }]),
            2 => self.waves.push(vec![Shot { flags: flag::ACK | flag::RST, ..end }]),
            _ => {}
        }
    }

    /// Adds something that an honest client does not send, or sends rarely.
    fn add_oddity(&mut self, random: &mut Random) {
        let at = random.index(self.waves.len() + 1);
        // Which J the others of the wave belong to.
        let of =
            self.waves.get(at).or(self.waves.last()).and_then(|wave| wave.first()).map_or(0, |shot| shot.of);
        let near = random.between(1, 60_000);
        let far = random.between(0x1000_0000, 0xf000_0000);
        let ack = Shot::ack(of);
        let shot = match random.index(24) {
            0 => Shot::syn(of),
            1 => Shot { data: random.length(1, 1200), ..Shot::syn(of) },
            2 => Shot::syn(1 + random.index(2)),
            3 => Shot { seq: near, ..Shot::syn(of) },
            4 => return self.restart(random, at),
            5 => Shot { flags: flag::RST, ..ack },
            6 => Shot { flags: flag::RST, seq: far, ..ack },
            7 => Shot { flags: flag::RST, seq: near, ..ack },
            8 => Shot { flags: flag::RST | flag::ACK, seq: random.pick(&[0, near, far]), ..ack },
            9 => Shot { seq: far, ..ack },
            10 => Shot { ack: random.pick(&[1, u32::MAX, near, far, SPOKEN, SPOKEN / 2, SPOKEN + 1]), ..ack },
            11 => Shot { seq: near, ..ack },
            12 => Shot { seq: random.between(64_000, 65_540), ..ack },
            13 => {
                let data = random.length(2, 1200);
                // Before what is expected, with or without overlap.
                let before = random.pick(&[1, u32::from(data), u32::from(data) - 1, u32::from(data) + 1]);
                Shot { seq: before.wrapping_neg(), data, ..ack }
            }
            14 => Shot { flags: flag::ACK | flag::FIN, seq: random.pick(&[0, near, far]), ..ack },
            15 => Shot { flags: flag::SYN | flag::ACK, seq: random.pick(&[0, near, far]), ..ack },
            16 => Shot { flags: flag::SYN | flag::FIN, ..Shot::syn(of) },
            17 => Shot { flags: random.pick(&[0, flag::FIN]), data: random.length(1, 100), ..ack },
            18 => return self.harm_one(random, at),
            19 => return self.harm_one(random, at),
            20 => return self.date_one(random, at),
            21 => return self.copy_one(random),
            22 => return self.reorder(random),
            _ => {
                // Without the third segment, if it is that.
                if at > 0 && at < self.waves.len() {
                    self.waves.remove(at);
                }
                return;
            }
        };
        let harm = random.pick(&[Harm::Checksum, Harm::Lost]);
        let shot = if random.once_in(12) { Shot { harm, ..shot } } else { shot };
        // SYNs come back to back too. What ends a connection has a wave of its own, so that the socket can be
        // looked at before it.
        if shot.has(flag::SYN)
            && random.once_in(3)
            && at < self.waves.len()
            && self.waves[at][0].has(flag::SYN)
        {
            let first = random.once_in(2);
            self.waves[at].insert(if first { 0 } else { 1 }, shot);
        } else {
            self.waves.insert(at, vec![shot]);
        }
    }

    /// From here on the client uses another J.
    fn restart(&mut self, random: &mut Random, at: usize) {
        let of = 1 + random.index(2);
        self.waves.iter_mut().skip(at).flatten().for_each(|shot| shot.of = of);
        self.waves.insert(at, vec![Shot::syn(of)]);
        if at + 1 == self.waves.len() && random.once_in(2) {
            self.waves.push(vec![Shot::ack(of)]);
        }
    }

    /// Harms a segment, or one like it that comes before.
    fn harm_one(&mut self, random: &mut Random, at: usize) {
        let Some(wave) = self.waves.get_mut(at) else { return };
        let harms = [Harm::Checksum, Harm::Lost, Harm::Fragments, Harm::SplitHeader, Harm::LostTail];
        let harm = random.pick(&harms);
        let is_whole = matches!(harm, Harm::Checksum | Harm::Lost);
        let data = if is_whole { wave[0].data } else { wave[0].data.max(64) };
        let harmed = Shot { harm, data, ..wave[0] };
        if random.once_in(2) {
            wave[0] = harmed;
        } else {
            self.waves.insert(at, vec![harmed]);
        }
    }

    /// Gives a segment, or one like it that comes before, timestamps that do not fit.
    fn date_one(&mut self, random: &mut Random, at: usize) {
        let Some(wave) = self.waves.get_mut(at) else { return };
        self.stamps = self.stamps.or_else(|| Some(random.word()));
        let dated = Shot { stamp: random.pick(&[Stamp::Old, Stamp::Old, Stamp::WrongEcho]), ..wave[0] };
        if random.once_in(2) {
            wave[0] = dated;
        } else {
            self.waves.insert(at, vec![dated]);
        }
    }

    /// A segment comes twice, at once or with the next wave.
    fn copy_one(&mut self, random: &mut Random) {
        let at = random.index(self.waves.len());
        let copy = self.waves[at][0];
        if random.once_in(2) {
            self.waves[at].push(copy);
        } else {
            self.waves.insert(at + 1, vec![copy]);
        }
    }

    /// Two waves change places.
    fn reorder(&mut self, random: &mut Random) {
        if self.waves.len() > 1 {
            let at = random.index(self.waves.len() - 1);
            self.waves.swap(at, at + 1);
        }
    }
}

/// One wave per line.
impl fmt::Display for Script {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamps = if self.stamps.is_some() { ", timestamps" } else { "" };
        write!(formatter, "    {}{stamps}", self.client)?;
        for (number, wave) in self.waves.iter().enumerate() {
            let shots: Vec<String> = wave.iter().map(Shot::to_string).collect();
            write!(formatter, "\n    {number}: {}", shots.join("; "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Harm, MOST_WAVES, Script, Stamp};
    use crate::frame::flag;

    fn scripts(seed: u64) -> Vec<Script> {
        (0..5000).map(|stream| Script::draw(seed, stream, 256)).collect()
    }

    #[test]
    fn a_seed_gives_the_same_scripts_always() {
        assert_eq!(scripts(1), scripts(1));
        let same = scripts(1).into_iter().zip(scripts(2)).filter(|(one, other)| one.waves == other.waves);
        assert!(same.count() < 500, "another seed gives other scripts");
        let script = Script::draw(1, 3085, 256 + 3085);
        assert_eq!(script.client.to_string(), "10.99.13.13:37403");
    }

    /// Every kind of segment occurs, and many conversations are honest.
    #[test]
    fn scripts_hold_every_kind_of_segment() {
        let scripts = scripts(3);
        let shots = || scripts.iter().flat_map(|script| script.waves.iter().flatten());
        let flags: HashSet<u8> = shots().map(|shot| shot.flags).collect();
        let (syn, fin, rst, ack) = (flag::SYN, flag::FIN, flag::RST, flag::ACK);
        for wanted in [syn, ack, fin, rst, 0, ack | fin, ack | rst, syn | ack, syn | fin] {
            assert!(flags.contains(&wanted), "no segment with the flags {wanted:#x}");
        }
        let harms = [Harm::Checksum, Harm::Lost, Harm::Fragments, Harm::SplitHeader, Harm::LostTail];
        assert!(harms.iter().all(|harm| shots().any(|shot| shot.harm == *harm)));
        assert!([Stamp::Old, Stamp::WrongEcho].iter().all(|stamp| shots().any(|shot| shot.stamp == *stamp)));
        assert!((0..3).all(|of| shots().any(|shot| shot.of == of)));
        let plain =
            scripts.iter().filter(|script| script.waves.len() == 2 && script.waves[1][0].flags == ack);
        assert!(plain.count() > 500);
    }

    /// A wave is never empty, and what ends a connection shares none with what establishes it.
    #[test]
    fn a_socket_can_be_looked_at_between_its_segments() {
        for script in scripts(4) {
            assert!(script.waves.len() <= MOST_WAVES + 1 && script.waves.iter().all(|wave| !wave.is_empty()));
            for wave in &script.waves {
                let ends = wave.iter().any(|shot| shot.has(flag::RST));
                assert!(!(ends && wave.iter().any(|shot| shot.is_ack())), "{script}");
            }
        }
    }
}
