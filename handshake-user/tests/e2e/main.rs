//! End-to-end tests of the command: it runs in networks with traffic by kernel TCP, and its reports are
//! compared with two independent accounts, the wire's and the kernel's. One binary, so that it is linked
//! once.

mod adversary;
mod books;
mod chart;
mod check;
mod checksum;
mod dashboard;
mod duckdb;
mod ending;
mod error;
mod events;
mod evidence;
mod fault;
mod filter;
mod first_byte;
mod gate;
mod header;
mod interfaces;
mod join;
mod loading;
mod memory;
mod names;
mod network;
mod otlp;
mod output;
mod owners;
mod privilege;
mod process;
mod recording;
mod replay;
mod report_file;
mod rows;
mod rules;
mod scenario;
mod serve;
mod services;
mod sight;
mod special;
mod stage;
mod super_packet;
mod terminal;
mod udp;
mod wall_clock;
mod why;
mod workloads;

/// The command under test.
const HANDSHAKE: &str = env!("CARGO_BIN_EXE_handshake");
