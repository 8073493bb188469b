//! The command on real traffic that nobody here made, held against what others say of it.
//!
//! The captures are in the folder that `HANDSHAKE_CAPTURES` names, by default one beside the project; without
//! them these tests count as skipped.

mod expected;
mod hostile;
mod live;
mod made;
mod middle;
mod options;
mod support;
mod wireshark;
