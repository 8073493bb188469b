//! What a report consists of: plain numbers, their names, and single flows. Functions of a reading and a scan.
//!
//! ```text
//! metric           every figure's name, unit, sentence and getter
//!   └─ snapshot    one report, and the difference of two
//!        ├─ service   the figures of each responder
//!        ├─ connect   the time to connect, of those that never connected too
//!        │    └─ latency   quantiles of the legs
//!        ├─ table     how full the tables are, what was evicted
//!        │    └─ books     the identity's terms
//!        ├─ packets   packets by class
//!        ├─ loss      what makes a report inexact
//!        ├─ lost     segments that came into this host and did not leave it
//!        ├─ unseen    connections that the kernel opened and no hook saw
//!        └─ context   what stays the same over a run
//! health           which services fail, by a snapshot or an interval
//! settled          attempts that have had their time
//! kept             some of the records, while a scan shows them
//! flow             one conversation, of either protocol
//! ```

pub mod books;
pub mod connect;
pub mod context;
pub mod flow;
pub mod health;
pub mod kept;
pub mod latency;
pub mod loss;
pub mod lost;
pub mod metric;
pub mod packets;
pub mod service;
pub mod settled;
pub mod snapshot;
pub mod table;
pub mod unseen;
mod workload;
