//! A settings file, with the rest at its defaults.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use slogate::config::file::SettingsFile;
use slogate::config::{Config, Layers};

fuzz_target!(|text: &str| {
    let file = match SettingsFile::parse(Path::new("fuzz.yaml"), text.to_owned()) {
        Ok(file) => file,
        Err(mistake) => {
            assert!(!mistake.to_string().is_empty());
            return;
        }
    };
    let layers = Layers {
        file: Some(file),
        ..Layers::default()
    };
    if let Err(mistakes) = Config::load(&layers) {
        assert!(!mistakes.to_string().is_empty());
    }
});
