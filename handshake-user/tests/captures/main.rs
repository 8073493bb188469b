//! Runs the command on real traffic from others, and compares it with independent accounts.
//!
//! The captures are in the folder that `HANDSHAKE_CAPTURES` names, by default one beside the project; without
//! them these tests count as skipped.

mod condition;
mod copies;
mod events;
mod expected;
mod forms;
mod frames;
mod hostile;
mod ladder;
mod live;
mod made;
mod memory;
mod middle;
mod options;
mod schema;
mod screens;
mod several;
mod support;
mod wireshark;
