//! What leaves the agent for other programs: the figures as series, the names that the operator gave to
//! services, and the text that Prometheus reads.
//!
//! ```text
//! prometheus   the text of an exposition, in both forms
//!   └─ figures      the series of a snapshot; counters never fall
//!        └─ service      figures by the operator's names
//! queue        what waits for an exporter's reader
//! config       what is wrong with a configuration
//! ```

pub(crate) mod config;
pub(crate) mod figures;
pub(crate) mod prometheus;
pub(crate) mod queue;
pub(crate) mod service;
