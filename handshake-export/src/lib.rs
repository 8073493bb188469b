//! What leaves the agent for other programs: its figures as series, the text that Prometheus reads, the HTTP
//! server that hands it out, OTLP, and the words with systemd.
//!
//! ```text
//! scraper ─▶ http: a thread ─▶ request ─▶ the loop ─▶ reading, at most one a second ─▶ page ─▶ scraper
//!
//! http         the server
//!   ├─ health        what /healthz and /readyz say
//!   └─ page          a reading as text, in each form once
//!        └─ prometheus    the text, in both forms
//!             └─ figures       the series of a snapshot; counters never fall
//!                  └─ service, workload    what the operator named
//!                       └─ names         figures by name
//! rows         rows of single attempts, for each exporter of them a queue
//!   └─ events        which attempts have a row
//! otlp         readings and rows to a collector: a thread
//! exemplar     flows to name beside counters
//! queue        what waits for an exporter's reader
//! notify       the words with systemd
//! ```
//!
//! Not here: the loop, the command line and its file, and anything that opens a file
//! (`handshake-user`).

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod events;
pub mod exemplar;
pub mod figures;
pub mod health;
pub mod http;
pub mod names;
pub mod notify;
pub mod otlp;
pub mod page;
pub mod prometheus;
pub mod queue;
pub mod rows;
pub mod service;
pub mod workload;
