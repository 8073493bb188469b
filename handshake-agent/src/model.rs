//! What a report consists of: plain numbers, their names, and single flows. Functions of a reading and a scan.

pub mod flow;
pub mod metric;
pub mod snapshot;
