//! The kernel side of handshake.
#![no_std]
#![no_main]
