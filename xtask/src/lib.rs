//! What the verbs of `cargo xtask` and the end-to-end tests share.

pub mod interrupt;
pub mod lab;
pub mod load;
