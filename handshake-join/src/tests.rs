//! What two accounts come to, written by hand: each way in which an attempt can be lost, and each in which
//! two accounts can deceive.

mod accounts;
mod lines;
mod lost;
mod seeming;
