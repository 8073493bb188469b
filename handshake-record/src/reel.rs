//! A recording as it is read: its moments in order, and what was at each.

use std::cmp::Reverse;
use std::fs::File;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use handshake_agent::recording::{Block, FORM, Player};

use super::names::segments_at;
use super::{HEAD, LONGEST, MAGIC, decode, first};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// Moments that are further apart than this have a gap between them, ns: they are a second apart, and one may be
/// late.
const GAP_NS: u64 = 2_500_000_000;

/// When something was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// By the wall clock, ns since the Unix epoch.
    pub wall_ns: u64,
    /// By the records' clock.
    pub ns: u64,
}

impl Time {
    /// How long nothing was recorded before this moment, where that is longer than moments are apart. The records'
    /// clock stands still while the machine sleeps, and is another one after it has started anew.
    #[must_use]
    pub fn gap_ns(self, before: Self) -> Option<u64> {
        let slept = self.wall_ns.saturating_sub(before.wall_ns);
        let gap_ns = self.ns.checked_sub(before.ns).map_or(slept, |ns| ns.max(slept));
        (gap_ns > GAP_NS || self.ns < before.ns).then_some(gap_ns)
    }
}

/// The moments of a recording, by their numbers. Those that are forgotten keep theirs.
#[derive(Default)]
pub struct Reel {
    segments: Vec<Segment>,
    moments: Vec<Moment>,
    /// The number of the first that is not forgotten.
    first: usize,
}

struct Segment {
    file: File,
    /// Bytes that were read.
    read: u64,
    /// Whether something in it makes no sense, so that nothing more is read of it.
    is_broken: bool,
}

/// Where a moment is.
struct Moment {
    segment: usize,
    at: u64,
    length: usize,
    is_whole: bool,
    time: Time,
}

impl Reel {
    /// Reads the recording in a folder.
    ///
    /// # Errors
    ///
    /// Those of the file system; it was recorded by a version that is not understood, or there is no moment in it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut reel = Self::default();
        let mut refused = None;
        for file in segments_at(path)? {
            refused = reel.add(file).err().or(refused);
        }
        match (reel.moments.is_empty(), refused) {
            (true, Some(error)) => Err(error),
            (true, None) => Err(io::Error::other("there is no moment in it")),
            (false, _) => Ok(reel),
        }
    }

    /// Adds the next segment, as far as it is written by now.
    ///
    /// # Errors
    ///
    /// Those of reading; it is of another version.
    pub fn add(&mut self, file: File) -> io::Result<()> {
        self.segments.push(Segment { file, read: 0, is_broken: false });
        self.follow()
    }

    /// Reads what was written since. What was cut off stays out, and what was removed is gone.
    ///
    /// # Errors
    ///
    /// Those of [`add`](Self::add).
    pub fn follow(&mut self) -> io::Result<()> {
        let Some(number) = self.segments.len().checked_sub(1) else { return Ok(()) };
        let Self { segments, moments, .. } = self;
        let segment = &mut segments[number];
        if segment.is_broken {
            return Ok(());
        }
        if segment.read == 0 {
            let mut head = [0; HEAD];
            if segment.file.read_exact_at(&mut head, 0).is_err() {
                return Ok(());
            }
            let (magic, form) = head.split_at(MAGIC.len());
            if magic != MAGIC || form != FORM.to_le_bytes() {
                segment.is_broken = true;
                return Err(io::Error::other("another version of handshake has recorded it"));
            }
            segment.read = HEAD as u64;
        }
        let mut pending = Vec::new();
        let mut piece = vec![0; PIECE];
        loop {
            let at = segment.read + pending.len() as u64;
            let got = segment.file.read_at(&mut piece, at)?;
            pending.extend(&piece[..got]);
            let mut used = 0;
            while let Some((bytes, length)) = first(&pending[used..]) {
                let Some(Block { is_whole, wall_ns, ns, .. }) = decode(bytes) else { break };
                let (at, time) = (segment.read + used as u64 + 8, Time { wall_ns, ns });
                moments.push(Moment { segment: number, at, length: bytes.len(), is_whole, time });
                used += length;
            }
            segment.read += used as u64;
            pending.drain(..used);
            if got == 0 || pending.len() > LONGEST + 8 {
                return Ok(());
            }
        }
    }

    /// Forgets the oldest segments, so that so many are left.
    pub fn keep(&mut self, segments: usize) {
        let gone = self.segments.len().saturating_sub(segments);
        self.segments.drain(..gone);
        let forgotten = self.moments.partition_point(|moment| moment.segment < gone);
        self.moments.drain(..forgotten);
        self.moments.iter_mut().for_each(|moment| moment.segment -= gone);
        self.first += forgotten;
    }

    /// The numbers of the moments.
    pub const fn numbers(&self) -> Range<usize> {
        self.first..self.first + self.moments.len()
    }

    /// When a moment was.
    pub fn time(&self, number: usize) -> Option<Time> {
        self.moments.get(number.checked_sub(self.first)?).map(|moment| moment.time)
    }

    /// The moment that was the present one at a time of the wall clock; where nothing was recorded then, the latest
    /// before. Where the clock was set back there are two, and it is the later one.
    pub fn at(&self, wall_ns: u64) -> Option<usize> {
        let ago = |moment: &Moment| wall_ns.checked_sub(moment.time.wall_ns);
        let present = self.moments.iter().rposition(|moment| ago(moment).is_some_and(|ago| ago <= GAP_NS));
        let before = || {
            let all = self.moments.iter().zip(0..).filter_map(|(moment, place)| Some((ago(moment)?, place)));
            all.min_by_key(|(ago, place)| (*ago, Reverse(*place))).map(|(_, place)| place)
        };
        present.or_else(before).map(|place| self.first + place)
    }

    /// Whether a moment was the present one at a time of the wall clock: nothing was recorded then where it was
    /// not.
    pub fn is_present(&self, number: usize, wall_ns: u64) -> bool {
        let time = self.time(number);
        time.and_then(|time| wall_ns.checked_sub(time.wall_ns)).is_some_and(|ago| ago <= GAP_NS)
    }

    /// How long before the end a moment was: by the wall clock, or by the records' where that was set back.
    pub fn ago_ns(&self, number: usize) -> u64 {
        let ago = |number: usize| {
            let (end, time) = (self.time(self.numbers().end.checked_sub(1)?)?, self.time(number)?);
            end.wall_ns.checked_sub(time.wall_ns).or_else(|| end.ns.checked_sub(time.ns))
        };
        ago(number).unwrap_or(0)
    }

    /// How long nothing was recorded before a moment.
    pub fn gap_before(&self, number: usize) -> Option<u64> {
        self.time(number)?.gap_ns(self.time(number.checked_sub(1)?)?)
    }

    /// Bytes that make no sense: of segments that are damaged, or of another version. `None` where a file does not
    /// tell its length.
    pub fn damaged(&self) -> Option<u64> {
        let left = |segment: &Segment| Some(segment.file.metadata().ok()?.len().saturating_sub(segment.read));
        self.segments.iter().map(left).sum()
    }

    /// Plays these moments, and calls `visit` with each; what must be played before is played, and not visited.
    /// One that cannot be played, and those that need it, are left out.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn play(
        &self,
        numbers: RangeInclusive<usize>,
        visit: &mut dyn FnMut(usize, &Player),
    ) -> io::Result<()> {
        let places = |number: usize| number.saturating_sub(self.first).min(self.moments.len());
        let (from, to) = (places(*numbers.start()), places(*numbers.end() + 1));
        let whole = self.moments[..to].iter().take(from + 1).rposition(|moment| moment.is_whole);
        let (mut player, mut is_sound) = (Player::default(), false);
        for (place, moment) in self.moments.iter().enumerate().take(to).skip(whole.unwrap_or(from)) {
            let mut bytes = vec![0; moment.length];
            self.segments[moment.segment].file.read_exact_at(&mut bytes, moment.at)?;
            let block = decode(&bytes).filter(|block| block.is_whole || is_sound);
            is_sound = block.is_some_and(|block| player.play(&block).is_some());
            if is_sound && place >= from {
                visit(self.first + place, &player);
            }
        }
        Ok(())
    }
}

/// How many moments a segment has.
pub(super) fn moments_of(file: &File) -> usize {
    let Ok(file) = file.try_clone() else { return 0 };
    let mut reel = Reel::default();
    // What cannot be read has none.
    let _ = reel.add(file);
    reel.numbers().len()
}
