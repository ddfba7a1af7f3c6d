//! See `hallpass::fuzzing::exchange_body`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hallpass::fuzzing::exchange_body(data));
