//! Replays the committed corpus: inputs by which the fuzzer reached new code, and every input that ever
//! failed.

use std::fs;
use std::path::{Path, PathBuf};

use handshake_fuzz::{TARGETS, Target};

/// The most bytes of the corpus: it is part of every clone.
const MAX_BYTES: u64 = 1 << 20;

#[test]
fn no_input_of_the_corpus_fails() {
    for target in TARGETS {
        let inputs = inputs(&target);
        assert!(inputs.len() >= 10, "{}: a corpus, not {} files", target.name, inputs.len());
        for input in inputs {
            let data = fs::read(&input).expect("a file of the corpus is readable");
            // Printed before it runs: a panic does not name its input.
            println!("{}", input.display());
            (target.run)(&data);
        }
    }
}

#[test]
fn every_target_accepts_short_inputs() {
    for target in TARGETS {
        for length in 0..64 {
            (target.run)(&vec![0; length]);
            (target.run)(&vec![0xff; length]);
        }
    }
}

#[test]
fn the_corpus_stays_small() {
    let files = TARGETS.iter().flat_map(inputs);
    let bytes: u64 = files.map(|file| fs::metadata(file).expect("the file is there").len()).sum();
    assert!(bytes <= MAX_BYTES, "{bytes} bytes: `cargo xtask fuzz TARGET --minimise`");
}

#[test]
fn the_corpus_has_one_folder_per_target() {
    let mut folders: Vec<String> = fs::read_dir(corpus())
        .expect("the corpus is beside the tests")
        .map(|entry| entry.expect("the folder is readable").file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort_unstable();
    let mut names = TARGETS.map(|target| target.name);
    names.sort_unstable();
    assert_eq!(folders, names);
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inputs(target: &Target) -> Vec<PathBuf> {
    let folder = corpus().join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the folder is readable").path()).collect();
    files.sort_unstable();
    files
}
