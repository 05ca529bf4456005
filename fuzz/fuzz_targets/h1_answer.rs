//! libFuzzer's entry to [`fuzz::h1_answer`]; the property itself stands in the library, where a test replays the corpus.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::h1_answer(input));
