//! LLVM's fuzzer on [`handshake_fuzz::parse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handshake_fuzz::parse(data));
