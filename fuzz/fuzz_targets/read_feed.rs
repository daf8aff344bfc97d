#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slugline_fuzz::read_feed(data));
