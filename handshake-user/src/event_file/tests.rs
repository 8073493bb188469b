//! The file of events on a real file system.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, mkfifoat};
use ruzstd::decoding::StreamingDecoder;
use tempfile::TempDir;

use super::EventFile;

/// The least room that the command line allows.
const ROOM: u64 = 1 << 20;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("events.jsonl");
    (folder, path)
}

fn open(path: &Path) -> EventFile {
    EventFile::open(path, ROOM).expect("it can be written")
}

/// A line of some 500 bytes.
fn line(number: u64) -> String {
    let noise: String = (0..16)
        .map(|at: u64| format!("{:020}", (number * 16 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    let rest = "\"verdict\":\"half_open_expired\",\"cause\":\"no_syn_ack\"";
    format!("{{\"type\":\"flow\",\"number\":{number},\"noise\":\"{noise}\",{rest}}}\n")
}

/// A short line.
fn row(number: u64) -> String {
    format!("{{\"type\":\"flow\",\"number\":{number}}}\n")
}

/// Short lines.
fn rows<const N: usize>(numbers: [u64; N]) -> Vec<String> {
    numbers.map(row).into()
}

fn append(file: &mut EventFile, lines: &str) {
    assert!(file.append(lines.as_bytes()).expect("there is room").is_none());
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("it is there");
    entries.map(|entry| entry.expect("it is there").file_name().into_string().expect("text")).collect()
}

fn packed(folder: &Path) -> Vec<String> {
    names(folder).into_iter().filter(|name| name.ends_with(".jsonl.zst")).collect()
}

/// All lines of the folder's files, packed or plain, in the order of their names: the open file is the last.
fn lines(folder: &Path) -> Vec<String> {
    let mut all = String::new();
    let mut names: Vec<String> = names(folder).into_iter().collect();
    names.sort_by_key(|name| (name == "events.jsonl", name.clone()));
    for name in names {
        let plain = fs::File::open(folder.join(&name)).expect("it is there");
        let mut reader: Box<dyn io::Read> = if name.ends_with(".zst") {
            Box::new(StreamingDecoder::new(plain).expect("a frame"))
        } else {
            Box::new(plain)
        };
        reader.read_to_string(&mut all).expect("text");
    }
    assert!(all.is_empty() || all.ends_with('\n'), "whole lines");
    all.lines().map(|line| format!("{line}\n")).collect()
}

/// Waits for what is being packed.
fn settle(file: &mut EventFile) {
    file.packing.take().map_or(Ok(()), super::joined).expect("it is packed");
}

#[test]
fn a_long_file_is_closed_packed_and_read_by_its_user_alone() {
    let (folder, path) = folder();
    let mut file = open(&path);
    let expected: Vec<String> = (0..2_000).map(line).collect();
    for piece in expected.chunks(64) {
        append(&mut file, &piece.concat());
        assert!(fs::metadata(&path).expect("it is there").len() <= ROOM / 10);
    }
    settle(&mut file);
    let closed = packed(folder.path());
    assert!(
        closed.len() >= 4 && names(folder.path()).len() == closed.len() + 1,
        "{:?}",
        names(folder.path())
    );
    assert_eq!(lines(folder.path()), expected);
    for name in names(folder.path()) {
        let mode = fs::metadata(folder.path().join(&name)).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// Rows of days are in several files even where they are few, and time alone makes no file.
#[test]
fn an_old_file_is_closed_by_the_next_look() {
    let (folder, path) = folder();
    let mut file = open(&path);
    file.oldest = Duration::ZERO;
    append(&mut file, "");
    append(&mut file, &row(1));
    append(&mut file, "");
    settle(&mut file);
    append(&mut file, "");
    assert_eq!((packed(folder.path()).len(), names(folder.path()).len()), (1, 2));
    append(&mut file, &row(2));
    append(&mut file, &row(3));
    settle(&mut file);
    assert_eq!(lines(folder.path()), rows([1, 2, 3]));
}

/// All files together stay within the room, also while one is packed; what has another name stays.
#[test]
fn the_oldest_closed_files_go_and_no_others() {
    let (folder, path) = folder();
    let others = [
        "events.json",
        "events-20200101T000000.000Z.jsonl.gz",
        "events-20200101T000000.000Z.jsonl.zst.old",
        "events-20200101.jsonl",
        "events-2020x101T000000.000Z.jsonl",
        "other-20200101T000000.000Z.jsonl.zst",
        ".events-20200101T000000.000Z.jsonl.tmp",
    ];
    for name in others {
        fs::write(folder.path().join(name), vec![b'x'; 300_000]).expect("there is room");
    }
    let linked = "events-20200101T000000.001Z.jsonl.zst";
    symlink(folder.path().join(others[0]), folder.path().join(linked)).expect("there is room");
    let old = folder.path().join("events-20200101T000000.002Z.jsonl.zst");
    fs::write(&old, vec![b'x'; 900_000]).expect("there is room");
    let mut file = open(&path);
    assert!(!old.exists(), "it is beyond the room");
    let expected: Vec<String> = (0..12_000).map(line).collect();
    for piece in expected.chunks(64) {
        append(&mut file, &piece.concat());
        let own = names(folder.path())
            .into_iter()
            .filter(|name| !others.contains(&name.as_str()) && name != linked);
        let size = |name: String| fs::metadata(folder.path().join(name)).map_or(0, |found| found.len());
        assert!(own.map(size).sum::<u64>() <= ROOM);
    }
    settle(&mut file);
    for name in others.iter().chain([&linked]) {
        fs::remove_file(folder.path().join(name)).expect("it is still there");
    }
    let kept = lines(folder.path());
    assert!(kept.len() > 1_000 && kept.len() < expected.len(), "{}", kept.len());
    assert_eq!(kept, expected[expected.len() - kept.len()..], "the latest");
}

/// What a killed run has left: a line that ends nowhere, a closed file that is not packed, one that is half
/// packed.
#[test]
fn what_a_killed_run_has_left_is_taken_over() {
    let (folder, path) = folder();
    let long = "x".repeat(200_000);
    fs::write(&path, format!("{}{}{{\"type\":\"flow\",\"cut\":\"{long}", row(1), row(2)))
        .expect("there is room");
    let closed = folder.path().join("events-20260301T120341.000Z.jsonl");
    fs::write(&closed, row(0)).expect("there is room");
    fs::set_permissions(&closed, Permissions::from_mode(0o640)).expect("it is there");
    fs::write(folder.path().join(".events-20260301T120341.000Z.jsonl.zst.tmp"), "x").expect("there is room");
    let mut file = open(&path);
    settle(&mut file);
    append(&mut file, &row(3));
    let packed = "events-20260301T120341.000Z.jsonl.zst";
    assert_eq!(names(folder.path()), [packed, "events.jsonl"].map(str::to_owned).into());
    assert_eq!(lines(folder.path()), rows([0, 1, 2, 3]));
    assert_eq!(fs::metadata(folder.path().join(packed)).expect("it is there").mode() & 0o777, 0o640);
    // Its time counts anew from now on.
    assert!(file.open.as_ref().is_some_and(|open| open.began.is_some()));
    drop(file);
    for cut in ["{", "{\"type\":\"flow\",\"at", "\0\0\0"] {
        fs::write(&path, cut).expect("there is room");
        drop(open(&path));
        assert_eq!(fs::read(&path).expect("it is there"), b"", "{cut}");
    }
}

#[test]
fn only_an_ordinary_file_of_ones_own_is_written() {
    let (folder, path) = folder();
    let refused = |why: &str| {
        let Err(error) = EventFile::open(&path, ROOM) else { panic!("it is opened: {why}") };
        assert!(error.to_string().contains(why), "{error}");
        fs::remove_file(&path).expect("it is there");
    };
    symlink(folder.path().join("target"), &path).expect("there is room");
    refused("symbolic link");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).expect("there is room");
    refused("no ordinary file");
    assert!(names(folder.path()).is_empty(), "nothing was made through the link");
    let first = open(&path);
    refused("another process writes it");
    drop(first);
}

/// As logrotate and people do: what was moved away keeps its rows, and the next ones are in a new file. A link
/// in its place is not followed.
#[test]
fn a_file_that_was_moved_away_is_left() {
    let (folder, path) = folder();
    let moved = folder.path().join("moved");
    let mut file = open(&path);
    append(&mut file, &row(1));
    fs::rename(&path, &moved).expect("it is there");
    append(&mut file, &row(2));
    assert_eq!(
        (fs::read(&moved).expect("moved"), fs::read(&path).expect("new")),
        (row(1).into_bytes(), row(2).into_bytes())
    );
    fs::remove_file(&path).expect("it is there");
    symlink(&moved, &path).expect("there is room");
    assert!((0..2).all(|_| file.append(row(3).as_bytes()).is_err()));
    fs::remove_file(&path).expect("it is there");
    append(&mut file, &row(4));
    assert_eq!(
        (fs::read(&moved).expect("moved"), fs::read(&path).expect("new")),
        (row(1).into_bytes(), row(4).into_bytes())
    );
}

/// A file that is not handshake's is neither cut, nor added to, nor closed and removed one day.
#[test]
fn a_file_of_other_lines_is_refused_and_stays_as_it_is() {
    let (_folder, path) = folder();
    let others = [
        "no line".to_owned(),
        "{\"level\":\"info\"}\n".to_owned(),
        format!("a line\n{}", row(1)),
        format!("{}a line without an end", row(1)),
        format!("{}{{\"type\":\"flowers\"", row(1)),
    ];
    for text in others {
        fs::write(&path, &text).expect("there is room");
        let Err(error) = EventFile::open(&path, ROOM) else { panic!("it is opened: {text}") };
        assert!(error.to_string().contains("other lines"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
    }
}

/// As logrotate's copytruncate does: an empty file is not long.
#[test]
fn a_file_that_was_emptied_begins_anew() {
    let (folder, path) = folder();
    let mut file = open(&path);
    let many: String = (0..190).map(line).collect();
    append(&mut file, &many);
    fs::File::options().write(true).open(&path).and_then(|file| file.set_len(0)).expect("it is there");
    append(&mut file, &many);
    assert_eq!((names(folder.path()).len(), fs::read_to_string(&path).expect("text")), (1, many));
}

/// A part of a line that stays behind a failed write is cut off before the next one.
#[test]
fn a_part_of_a_line_is_cut_off() {
    let (_folder, path) = folder();
    let mut file = open(&path);
    append(&mut file, &row(1));
    let mut other = fs::File::options().append(true).open(&path).expect("it is there");
    other.write_all(b"{\"type\":\"flow\",\"cut").expect("there is room");
    append(&mut file, &row(2));
    assert_eq!(fs::read_to_string(&path).expect("text"), rows([1, 2]).concat());
}

/// As a cleaner of temporary files, or a person: rows go on as soon as the folder is there again.
#[test]
fn a_folder_that_was_removed_is_found_again() {
    let (folder, _) = folder();
    let path = folder.path().join("inner").join("events.jsonl");
    let inner = path.parent().expect("a folder");
    fs::create_dir(inner).expect("there is room");
    let mut file = open(&path);
    append(&mut file, &row(1));
    fs::remove_dir_all(inner).expect("it is there");
    assert!(file.append(row(2).as_bytes()).is_err());
    fs::create_dir(inner).expect("there is room");
    append(&mut file, &row(3));
    assert_eq!(lines(inner), rows([3]));
}

/// One that cannot be packed does not keep the later ones from it, nor the oldest from being removed.
#[test]
fn a_file_that_cannot_be_packed_holds_nothing_up() {
    let (folder, path) = folder();
    let [old, stuck, next] =
        ["00", "01", "02"].map(|at| folder.path().join(format!("events-20200101T0000{at}.000Z.jsonl")));
    fs::write(&stuck, row(1)).expect("there is room");
    fs::create_dir(stuck.with_extension("jsonl.zst")).expect("there is room");
    fs::write(&next, row(2)).expect("there is room");
    let mut file = open(&path);
    let packed = file.packing.take().map_or(Ok(()), super::joined);
    assert!(packed.is_err_and(|error| error.to_string().contains("stays as it is")));
    assert!(stuck.exists() && !next.exists() && next.with_extension("jsonl.zst").exists());
    fs::write(&old, vec![b'x'; 900_000]).expect("there is room");
    file.packing = Some(std::thread::spawn(|| Err(io::ErrorKind::Other.into())));
    file.oldest = Duration::ZERO;
    append(&mut file, &row(3));
    assert!(file.append(b"").is_ok_and(|beside| beside.is_some()) && !old.exists());
}

/// Another run that waits for the file neither gets the one that is being closed nor makes the next one.
#[test]
fn who_waits_gets_no_file_while_files_change() {
    let (folder, path) = folder();
    let mut first = open(&path);
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || EventFile::open(&path, ROOM).map(drop)
    });
    let mut count = 0;
    while !waiting.is_finished() {
        append(&mut first, &line(count));
        count += 1;
    }
    let waited = waiting.join().expect("no panic");
    assert!(waited.is_err_and(|error| error.to_string().contains("another process")), "after {count} rows");
    assert!(packed(folder.path()).len() > 1, "files changed meanwhile");
}
