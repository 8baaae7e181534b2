//! A policy file: mistakes are rendered, gates are explained, and a gate written out with every
//! default reads back as the same gate.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slogate::policy::{explain, parse};

fuzz_target!(|text: &str| {
    let gates = match parse("fuzz.yaml", text) {
        Ok(gates) => gates,
        Err(mistakes) => {
            assert!(!mistakes.to_string().is_empty());
            return;
        }
    };
    assert!(!gates.is_empty());
    for gate in gates {
        assert!(!explain(&gate).is_empty());
        let written = serde_json::to_string(&gate).expect("a gate can be written");
        let again = parse("written.yaml", &written)
            .unwrap_or_else(|mistakes| panic!("{written}\n{mistakes}"));
        assert_eq!(again, [gate]);
    }
});
