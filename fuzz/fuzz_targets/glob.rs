//! See `hallpass::fuzzing::glob`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hallpass::fuzzing::glob(data));
