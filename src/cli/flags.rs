//! The table of settings as flags, so that no flag is written down twice.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use crate::config::file::SettingsFile;
use crate::config::table::SETTINGS;
use crate::config::value::Kind;
use crate::config::{Config, Layers, Mistake, Mistakes, Values};

/// Where a settings file is looked for without being named.
const USUAL_FILE: &str = "slogate.yaml";

/// `--config` and one flag for each setting.
#[derive(Debug, Default)]
pub(super) struct SettingFlags {
    file: Option<PathBuf>,
    flags: Vec<(&'static str, String)>,
}

impl SettingFlags {
    /// No flags but `--config`.
    pub(super) fn of_file(file: Option<PathBuf>) -> Self {
        SettingFlags {
            file,
            flags: Vec::new(),
        }
    }

    /// With settings that a command has flags of its own for, by their keys.
    pub(super) fn with(mut self, flags: Vec<(&'static str, String)>) -> Self {
        self.flags.extend(flags);
        self
    }

    /// Reads the file, the environment and these flags.
    ///
    /// # Errors
    /// With every mistake found.
    pub(super) fn load(&self) -> Result<(Config, Values), Mistakes> {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| {
                let value = value.to_string_lossy().into_owned();
                name.into_string().ok().map(|name| (name, value))
            })
            .collect();
        self.load_with(env)
    }

    fn load_with(&self, env: Vec<(String, String)>) -> Result<(Config, Values), Mistakes> {
        let layers = Layers {
            file: self
                .read_file(&env)
                .map_err(|mistake| Mistakes(vec![mistake]))?,
            env,
            flags: self.flags.clone(),
        };
        Config::load(&layers)
    }

    /// The file that is named must be there; the usual one may be missing.
    fn read_file(&self, env: &[(String, String)]) -> Result<Option<SettingsFile>, Mistake> {
        let named = env
            .iter()
            .find(|(name, value)| name == "SLOGATE_CONFIG" && !value.is_empty())
            .map(|(_, value)| PathBuf::from(value));
        if let Some(path) = self.file.clone().or(named) {
            return SettingsFile::read(&path).map(Some);
        }
        let usual = Path::new(USUAL_FILE);
        match usual.try_exists() {
            Ok(false) => Ok(None),
            _ => SettingsFile::read(usual).map(Some),
        }
    }
}

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("The settings file [env: SLOGATE_CONFIG] [default: slogate.yaml, where there is one]");
        SETTINGS.iter().fold(command.arg(file), |command, setting| {
            let default = match setting.default {
                Some(default) => format!(" [default: {default}]"),
                None => String::new(),
            };
            let arg = Arg::new(setting.key)
                .long(setting.flag)
                .value_name(setting.kind.placeholder())
                .help(format!("{} [env: {}]{default}", setting.doc, setting.env))
                .help_heading("Settings")
                .action(ArgAction::Set);
            // `--listen-allow-non-loopback` alone means true.
            let arg = match setting.kind {
                Kind::Bool => arg.num_args(0..=1).default_missing_value("true"),
                _ => arg,
            };
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = SettingFlags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        self.flags = SETTINGS
            .iter()
            .filter_map(|setting| {
                let text = matches.get_one::<String>(setting.key)?;
                Some((setting.key, text.clone()))
            })
            .collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: SettingFlags,
    }

    fn load(line: &str, env: &[(&str, &str)]) -> Result<(Config, Values), Mistakes> {
        let flags = Line::parse_from(line.split_whitespace()).flags;
        let owned = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
        flags.load_with(env.iter().map(owned).collect())
    }

    #[test]
    fn every_setting_is_a_flag_and_reaches_the_configuration() {
        let (config, values) = load(
            "serve --listen-api 127.0.0.1:1 --judge-interval 7s --listen-allow-non-loopback",
            &[],
        )
        .unwrap();
        assert_eq!(config.listen.api.port(), 1);
        assert_eq!(config.judge_interval_ms, 7000);
        let (allowed, origin) = values.get("listen.allowNonLoopback").unwrap();
        assert_eq!(allowed.to_string(), "true");
        assert_eq!(origin.to_string(), "--listen-allow-non-loopback");
        for setting in SETTINGS {
            let flag = format!("--{}", setting.flag);
            let line = ["serve", flag.as_str(), "x"];
            let flags = Line::parse_from(line).flags.flags;
            assert_eq!(flags, [(setting.key, "x".to_owned())]);
        }
    }

    #[test]
    fn the_file_is_named_by_flag_or_environment_and_must_then_be_there() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.yaml");
        std::fs::write(&path, "judge: { interval: 3s }").unwrap();
        let path = path.to_str().unwrap();
        let (config, _) = load(&format!("serve --config {path}"), &[]).unwrap();
        assert_eq!(config.judge_interval_ms, 3000);
        let (config, _) = load("serve", &[("SLOGATE_CONFIG", path)]).unwrap();
        assert_eq!(config.judge_interval_ms, 3000);
        let error = load("serve --config /nonexistent.yaml", &[]).unwrap_err();
        assert!(error.to_string().contains("can't be read"), "{error}");
    }
}
