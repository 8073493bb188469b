//! LLVM's fuzzer on [`handshake_fuzz::track`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| handshake_fuzz::track(data));
