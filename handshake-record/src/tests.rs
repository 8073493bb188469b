//! What is written is read again, whatever becomes of the end, the folder, or the disk.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use handshake_agent::fake::{BEGINNING, Fake, SECOND};
use handshake_agent::model::context::{LiveOrigin, Origin, RunContext};
use handshake_agent::options::Filter;
use handshake_agent::owner::OwnerBook;
use handshake_agent::recording::{Block, Ends, Recorder};
use handshake_common::abi::Counter;
use tempfile::TempDir;

use super::{Folder, Reel, encode, is_recording};

/// Blocks of a service that completes an attempt a second.
struct Run {
    fake: Fake,
    context: Arc<RunContext>,
    recorder: Recorder,
}

impl Run {
    fn new() -> Self {
        let mut fake = Fake::new();
        fake.service(1, "10.0.0.2:443");
        let context = RunContext {
            origin: Origin::Live(LiveOrigin::default()),
            began: BEGINNING,
            filter: Filter::default(),
            top: usize::MAX,
            owners: OwnerBook::default(),
        };
        Self { fake, context: Arc::new(context), recorder: Recorder::default() }
    }

    fn next(&mut self) -> Block {
        self.fake.later(SECOND);
        self.fake.ended(1, Counter::Completed, 1);
        self.recorder.block(&mut self.fake, &self.context, &mut Ends::default()).expect("a fake never fails")
    }
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("recording");
    (folder, path)
}

/// The attempts that each moment had counted.
fn counted(path: &Path) -> Vec<u64> {
    let reel = Reel::open(path).expect("it is a recording");
    played(&reel)
}

fn played(reel: &Reel) -> Vec<u64> {
    let numbers = reel.numbers();
    let mut counted = Vec::new();
    let last = numbers.end.checked_sub(1).expect("there are moments");
    reel.play(numbers.start..=last, &mut |_, player| {
        let mut moment = player.moment().expect("it makes sense");
        counted.push(moment.snapshot().expect("it has been read").tcp.books.attempts);
    })
    .expect("it can be read");
    counted
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").path());
    let mut all: Vec<PathBuf> =
        names.filter(|name| name.extension().is_some_and(|end| end == "rec")).collect();
    all.sort();
    all
}

#[test]
fn what_is_written_is_read_again() {
    let (_keeps, path) = folder();
    let (mut run, mut writes) = (Run::new(), Folder::open(&path).expect("it is made"));
    let begun: Vec<bool> =
        (0..150).map(|_| writes.append(&encode(&run.next())).expect("there is room").is_some()).collect();
    assert!(is_recording(&path));
    assert_eq!(begun.iter().filter(|begun| **begun).count(), 3);
    assert_eq!(counted(&path), (1..=150).collect::<Vec<u64>>());
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert!(segments(&path).iter().all(|segment| mode(segment) == 0o600));
    let reel = Reel::open(&path).expect("it is a recording");
    let time = |number: usize| reel.time(number).expect("there is such a moment").wall_ns;
    assert_eq!(reel.at(time(77)), Some(77));
    assert_eq!(reel.at(time(77) + SECOND / 2), Some(77));
    assert_eq!(reel.at(time(0) - 1), None);
}

/// One that is killed while it writes leaves a part of its last block. Wherever it is cut, what is before is read.
#[test]
fn a_recording_that_is_cut_opens() {
    let (_keeps, path) = folder();
    let mut run = Run::new();
    let mut writes = Folder::open(&path).expect("it is made");
    (0..5).for_each(|_| drop(writes.append(&encode(&run.next())).expect("there is room")));
    let [segment] = &segments(&path)[..] else { panic!("one minute") };
    let before = fs::metadata(segment).expect("it is there").len();
    writes.append(&encode(&run.next())).expect("there is room");
    let whole = fs::read(segment).expect("it can be read");
    drop(writes);
    for cut in usize::try_from(before).expect("it is short")..whole.len() {
        fs::write(segment, &whole[..cut]).expect("there is room");
        assert_eq!(counted(&path), [1, 2, 3, 4, 5], "cut at {cut}");
        let reel = Reel::open(&path).expect("it is a recording");
        assert_eq!(reel.damaged(), Some(cut as u64 - before));
    }
    fs::write(segment, &whole).expect("there is room");
    assert_eq!(counted(&path).len(), 6);
    // Another run begins a segment of its own, and leaves the cut one as it is.
    fs::write(segment, &whole[..whole.len() - 1]).expect("there is room");
    let (mut run, mut writes) = (Run::new(), Folder::open(&path).expect("it is not locked"));
    writes.append(&encode(&run.next())).expect("there is room");
    assert_eq!(counted(&path), [1, 2, 3, 4, 5, 1]);
}

/// A byte that changed on the disk ends what is read of its segment, and no more.
#[test]
fn a_changed_byte_is_found() {
    let (_keeps, path) = folder();
    let (mut run, mut writes) = (Run::new(), Folder::open(&path).expect("it is made"));
    (0..63).for_each(|_| drop(writes.append(&encode(&run.next())).expect("there is room")));
    let first = &segments(&path)[0];
    let whole = fs::read(first).expect("it can be read");
    let mut fewest = usize::MAX;
    for at in (0..whole.len()).rev().step_by(89) {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        fs::write(first, &changed).expect("there is room");
        let counted = counted(&path);
        assert!(counted.len() < 63, "the byte at {at}");
        assert_eq!(counted[counted.len() - 3..], [61, 62, 63], "the byte at {at}");
        fewest = fewest.min(counted.len());
        let damaged = Reel::open(&path).expect("it is a recording").damaged().expect("files have a length");
        assert!(damaged >= (whole.len() - at) as u64, "{damaged} behind {at}");
    }
    assert_eq!(fewest, 3, "in the head, or in the block that is whole");
}

#[test]
fn the_oldest_go() {
    let (_keeps, path) = folder();
    let (mut run, writes) = (Run::new(), Folder::open(&path).expect("it is made"));
    let mut writes = writes.within(120, 1 << 30);
    (0..300).for_each(|_| drop(writes.append(&encode(&run.next())).expect("there is room")));
    assert_eq!(counted(&path), (181..=300).collect::<Vec<u64>>());
    // By what they take of the disk.
    let bytes = |path: &Path| -> u64 {
        segments(path).iter().map(|segment| fs::metadata(segment).expect("it is there").len()).sum()
    };
    let room = bytes(&path) / 2;
    drop(writes);
    let mut writes = Folder::open(&path).expect("it is not locked").within(usize::MAX, room);
    let (mut run, mut most) = (Run::new(), 0);
    for _ in 0..200 {
        writes.append(&encode(&run.next())).expect("there is room");
        most = most.max(bytes(&path));
    }
    assert!(most <= room, "{most} of {room}");
    // Nothing else is removed.
    let mine = path.join("handshake-notes.rec");
    fs::write(&mine, "mine").expect("there is room");
    (0..100).for_each(|_| drop(writes.append(&encode(&run.next())).expect("there is room")));
    assert_eq!(fs::read(&mine).expect("it is there"), b"mine");
}

#[test]
fn no_link_is_followed() {
    let (keeps, path) = folder();
    let elsewhere = keeps.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("there is room");
    symlink(&elsewhere, &path).expect("there is room");
    let refused = Folder::open(&path).err().expect("it is a link").to_string();
    assert_eq!(refused, "it is a link, or no folder");
    fs::remove_file(&path).expect("it is there");
    File::create(&path).expect("there is room");
    assert!(Folder::open(&path).is_err(), "it is a file");
    fs::remove_file(&path).expect("it is there");
    // One in the folder, of the next segment's name.
    let mut writes = Folder::open(&path).expect("it is made");
    let target = keeps.path().join("target");
    fs::write(&target, "mine").expect("there is room");
    symlink(&target, path.join("handshake-0000000001.rec")).expect("there is room");
    let mut run = Run::new();
    assert!(writes.append(&encode(&run.next())).is_err());
    assert_eq!(fs::read(&target).expect("it is there"), b"mine");
    // It holds up one moment, and not all that come.
    run.recorder.begin_anew();
    writes.append(&encode(&run.next())).expect("the next name is free");
    assert_eq!(fs::read(&target).expect("it is there"), b"mine");
}

#[test]
fn two_do_not_record_to_one_folder() {
    let (_keeps, path) = folder();
    let first = Folder::open(&path).expect("it is made");
    let refused = Folder::open(&path).err().expect("it is locked").to_string();
    assert_eq!(refused, "another process records there");
    drop(first);
    Folder::open(&path).expect("it is not locked");
}

/// The folder is made again. Only a whole block is of use then.
#[test]
fn a_folder_that_was_removed_is_made_again() {
    let (_keeps, path) = folder();
    let (mut run, mut writes) = (Run::new(), Folder::open(&path).expect("it is made"));
    (0..3).for_each(|_| drop(writes.append(&encode(&run.next())).expect("there is room")));
    fs::remove_dir_all(&path).expect("it is there");
    assert!(writes.append(&encode(&run.next())).is_err(), "it says what has changed");
    run.recorder.begin_anew();
    writes.append(&encode(&run.next())).expect("the folder is there again").expect("a segment");
    writes.append(&encode(&run.next())).expect("there is room");
    assert_eq!(counted(&path), [5, 6]);
    // The file alone.
    segments(&path).iter().for_each(|segment| fs::remove_file(segment).expect("it is there"));
    assert!(writes.append(&encode(&run.next())).is_err());
    run.recorder.begin_anew();
    writes.append(&encode(&run.next())).expect("there is room");
    assert_eq!(counted(&path), [8]);
    // Another process has made the folder again, and recorded there meanwhile.
    fs::remove_dir_all(&path).expect("it is there");
    let (mut other, mut writes_too) = (Run::new(), Folder::open(&path).expect("it is another folder"));
    for _ in 0..200 {
        writes_too.append(&encode(&other.next())).expect("there is room");
    }
    drop(writes_too);
    run.recorder.begin_anew();
    writes.append(&encode(&run.next())).expect("it is there");
    assert_eq!(counted(&path), (1..=200).chain([9]).collect::<Vec<u64>>());
}

/// Short runs begin many segments, and who reads them has few files to open.
#[test]
fn segments_are_not_without_number() {
    let (_keeps, path) = folder();
    let (mut run, mut writes) = (Run::new(), Folder::open(&path).expect("it is made"));
    for _ in 0..600 {
        run.recorder.begin_anew();
        writes.append(&encode(&run.next())).expect("there is room");
    }
    assert_eq!(segments(&path).len(), 500);
    assert_eq!(counted(&path), (101..=600).collect::<Vec<u64>>());
}

/// While the machine sleeps, and while nothing can be written, there is no moment; the latest before is one of then.
#[test]
fn a_gap_is_told() {
    let (_keeps, path) = folder();
    let (mut run, mut writes) = (Run::new(), Folder::open(&path).expect("it is made"));
    let mut walls = Vec::new();
    for second in 0..40 {
        match second {
            // It sleeps: the records' clock stands still.
            10 => run.fake.reading.wall_ns += 7_200 * SECOND,
            20 => run.fake.later(30 * SECOND),
            // One moment was late.
            30 => run.fake.later(SECOND),
            _ => {}
        }
        let block = run.next();
        walls.push(block.wall_ns);
        writes.append(&encode(&block)).expect("there is room");
    }
    let reel = Reel::open(&path).expect("it is a recording");
    let gaps: Vec<(usize, u64)> =
        reel.numbers().filter_map(|number| Some((number, reel.gap_before(number)?))).collect();
    assert_eq!(gaps, [(10, 7_201 * SECOND), (20, 31 * SECOND)]);
    assert_eq!(reel.at(walls[10] - SECOND), Some(9));
    assert!(!reel.is_present(9, walls[10] - SECOND));
    assert!(reel.is_present(9, walls[9] + SECOND) && reel.is_present(31, walls[31]));
    assert!(!reel.is_present(39, walls[39] + 3 * SECOND), "after the end");
    assert_eq!((reel.ago_ns(39), reel.ago_ns(38)), (0, SECOND));
}

/// The wall clock is set back: times that were twice are those of the later moments, and each other is its own.
#[test]
fn the_clock_may_be_set_back() {
    let (_keeps, path) = folder();
    let (mut run, mut writes) = (Run::new(), Folder::open(&path).expect("it is made"));
    let mut walls = Vec::new();
    for second in 0..130 {
        if second == 70 {
            run.fake.reading.wall_ns -= 3_600 * SECOND;
        }
        let block = run.next();
        walls.push(block.wall_ns);
        writes.append(&encode(&block)).expect("there is room");
    }
    assert_eq!(counted(&path), (1..=130).collect::<Vec<u64>>(), "in the order in which they were");
    let reel = Reel::open(&path).expect("it is a recording");
    assert_eq!((reel.at(walls[100]), reel.at(walls[20]), reel.at(u64::MAX)), (Some(100), Some(20), Some(69)));
    assert_eq!(reel.ago_ns(20), 109 * SECOND, "by the records' clock");
    // By so little that the same times come again.
    run.fake.reading.wall_ns -= 40 * SECOND;
    for _ in 0..60 {
        let block = run.next();
        walls.push(block.wall_ns);
        writes.append(&encode(&block)).expect("there is room");
    }
    let reel = Reel::open(&path).expect("it is a recording");
    assert_eq!((reel.at(walls[129]), reel.at(walls[80])), (Some(169), Some(80)));
}

#[test]
fn what_is_no_recording_is_refused() {
    let (_keeps, path) = folder();
    fs::create_dir(&path).expect("there is room");
    assert!(!is_recording(&path));
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("it is ours");
    let segment = path.join("handshake-0000000007.rec");
    for (bytes, words) in [
        (&b""[..], "there is no moment in it"),
        (b"handshake record", "there is no moment in it"),
        (b"handshake record\0\0\0\0\0\0\0\0", "another version of handshake has recorded it"),
        (b"something else, of its own length", "another version of handshake has recorded it"),
    ] {
        fs::write(&segment, bytes).expect("there is room");
        let refused = Reel::open(&path).err().expect("it is none").to_string();
        assert_eq!(refused, words);
    }
}

/// A reel that is read while it is written has each moment once, and forgets those that are gone.
#[test]
fn a_reel_follows_what_is_written() {
    let (_keeps, path) = folder();
    let (mut run, mut writes, mut reel) =
        (Run::new(), Folder::open(&path).expect("it is made"), Reel::default());
    for second in 1..=200_u64 {
        if let Some(segment) = writes.append(&encode(&run.next())).expect("there is room") {
            reel.add(segment).expect("it can be read");
            reel.keep(2);
        }
        reel.follow().expect("it can be read");
        let first = second.saturating_sub(1) / 60 * 60;
        let first = first.saturating_sub(60);
        assert_eq!(played(&reel), (first + 1..=second).collect::<Vec<u64>>());
        let number = |second: u64| usize::try_from(second).expect("a small number");
        assert_eq!(reel.numbers(), number(first)..number(second));
    }
}
