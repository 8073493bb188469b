//! LLVM's fuzzer on [`handshake_fuzz::capture`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handshake_fuzz::capture(data));
