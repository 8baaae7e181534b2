//! A query, after a byte that chooses settings: evaluated over a small store, at one time and
//! over steps, it gives what holds of every result. See [`slogate_fuzz::query`].
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str)| slogate_fuzz::query::check(input.0, input.1));
