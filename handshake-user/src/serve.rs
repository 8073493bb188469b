//! What a service has besides the session: its HTTP server, the words with systemd, the files that it writes,
//! and flows to name beside its counters.
//!
//! ```text
//! scraper ─▶ http: a thread ─▶ request ─▶ the loop ─▶ reading, at most one a second ─▶ page ─▶ scraper
//!                                                       └─▶ errand: a thread ─▶ helper ─▶ file
//! ```
//!
//! The loop waits for neither: a scraper that is slow holds a connection, a file system that hangs holds the
//! thread of the errands.

pub(crate) mod errand;
pub(crate) mod exemplar;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod notify;
pub(crate) mod page;
