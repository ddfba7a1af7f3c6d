//! See `hallpass::fuzzing::policy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hallpass::fuzzing::policy(data));
