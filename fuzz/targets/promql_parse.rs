//! A query: what parses prints, and what is printed parses to the same; a mistake is shown at
//! its place. Both without and with what is behind flags.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slogate_promql::{ParseOptions, parse_with};

fuzz_target!(|query: &str| {
    for options in [ParseOptions::default(), ParseOptions::everything()] {
        let expr = match parse_with(query, options) {
            Ok(expr) => expr,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert!(error.render(query).contains('^'));
                continue;
            }
        };
        let printed = expr.to_string();
        let again = parse_with(&printed, options)
            .unwrap_or_else(|error| panic!("{query:?} prints as {printed:?}: {error}"));
        assert_eq!(printed, again.to_string(), "from {query:?}");
    }
});
