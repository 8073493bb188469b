//! No module of this crate: what `tests/model`, which takes `engine.rs` and `table.rs` as they are, finds
//! in the place of their own tests.
