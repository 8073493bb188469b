//! What the verbs of `cargo xtask` and the end-to-end tests share.

pub mod books;
pub mod interrupt;
pub mod lab;
pub mod load;
