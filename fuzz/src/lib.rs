//! Fuzz targets: each is a function of bytes that panics where a promise of handshake does not hold.
//!
//! `cargo xtask fuzz TARGET` runs one under LLVM's fuzzer; `tests/corpus.rs` replays what it found worth
//! keeping, in `corpus/TARGET/`, with every run of the tests.

mod capture;
mod flags;
mod parse;
mod track;

pub use capture::capture;
pub use parse::parse;
pub use track::track;

/// A target.
pub struct Target {
    /// Its binary, and its folder of the corpus.
    pub name: &'static str,
    /// Tries one input.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 3] = [
    Target { name: "parse", run: parse },
    Target { name: "track", run: track },
    Target { name: "capture", run: capture },
];
