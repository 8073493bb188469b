//! Fuzz targets: each is a function of bytes that panics if a promise of handshake does not hold.
//!
//! `cargo xtask fuzz TARGET` runs one under LLVM's fuzzer. `tests/corpus.rs` replays the kept inputs in
//! `corpus/TARGET/` with every run of the tests.

mod capture;
mod flags;
mod parse;
mod track;

pub use capture::capture;
pub use parse::parse;
pub use track::track;

/// A fuzz target.
pub struct Target {
    /// The name of its binary and of its corpus folder.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
}

/// All fuzz targets.
pub const TARGETS: [Target; 3] = [
    Target { name: "parse", run: parse },
    Target { name: "track", run: track },
    Target { name: "capture", run: capture },
];
