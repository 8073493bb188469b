//! Tests of what a check shows.
