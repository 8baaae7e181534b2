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
