//! See `hallpass::fuzzing::token`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hallpass::fuzzing::token(data));
