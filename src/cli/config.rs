//! `slogate config`: the effective settings and where each came from.

use serde_json::json;

use super::Exit;
use super::flags::SettingFlags;
use super::output::{self, Output, OutputArgs};
use crate::config::Values;
use crate::config::reference;
use crate::config::table::SETTINGS;
use crate::config::value::Kind;

/// Print the effective settings and where each value came from
///
/// Takes the same flags, environment and file as `slogate serve`, so it shows what that would
/// run with. Ends with 64 where a setting is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slogate config
  slogate config --config /etc/slogate.yaml --output json
  SLOGATE_JUDGE_INTERVAL=5s slogate config
  slogate config --reference > docs/configuration.md")]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    output: OutputArgs,
    /// Print the reference of all settings as Markdown instead
    #[arg(long)]
    reference: bool,
    #[command(flatten)]
    settings: SettingFlags,
}

/// Runs the command.
pub(super) fn run(args: &ConfigArgs) -> Exit {
    if args.reference {
        output::print(&reference::markdown());
        return Exit::Ok;
    }
    match args.settings.load() {
        Ok((_, values)) => {
            for warning in &values.warnings {
                output::complain(format_args!("warning: {warning}"));
            }
            match args.output.output {
                Output::Text => output::print(&text(&values)),
                Output::Json => output::print_json(&json_of(&values)),
            }
            Exit::Ok
        }
        Err(mistakes) => {
            output::remark(mistakes);
            Exit::Usage
        }
    }
}

/// `key: value  # origin`, aligned, in the table's order.
fn text(values: &Values) -> String {
    let lines: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|setting| match values.get(setting.key) {
            Some((value, origin)) => (
                format!("{}: {}", setting.key, setting.shown(value)),
                origin.to_string(),
            ),
            None => (format!("{}:", setting.key), "not set".to_owned()),
        })
        .collect();
    let width = lines
        .iter()
        .map(|(line, _)| line.chars().count())
        .max()
        .unwrap_or(0);
    lines
        .iter()
        .map(|(line, origin)| format!("{line:width$}  # {origin}\n"))
        .collect()
}

/// `{"settings": [{"key", "value", "origin"}], "warnings": […]}`.
fn json_of(values: &Values) -> serde_json::Value {
    let settings: Vec<serde_json::Value> = SETTINGS
        .iter()
        .map(|setting| match values.get(setting.key) {
            Some((value, origin)) => json!({
                "key": setting.key,
                "value": match setting.kind {
                    Kind::Url => setting.shown(value).into(),
                    _ => value.to_json(),
                },
                "origin": origin.to_string(),
            }),
            None => json!({ "key": setting.key, "value": null, "origin": "default" }),
        })
        .collect();
    json!({ "settings": settings, "warnings": values.warnings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Layers};

    #[test]
    fn shows_every_setting_with_its_origin() {
        let layers = Layers {
            flags: vec![("listen.api", "127.0.0.1:0".to_owned())],
            env: vec![("SLOGATE_LOG_FORMAT".to_owned(), "json".to_owned())],
            file: None,
        };
        let (_, values) = Config::load(&layers).unwrap();
        let text = text(&values);
        assert_eq!(text.lines().count(), SETTINGS.len());
        let line = |key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("listen.api"), "listen.api: 127.0.0.1:0 # --listen-api");
        assert_eq!(line("log.format"), "log.format: json # SLOGATE_LOG_FORMAT");
        assert_eq!(line("source.url"), "source.url: # not set");
        let json = json_of(&values);
        assert_eq!(json["settings"][0]["value"], "127.0.0.1:0");
        assert_eq!(json["settings"][0]["origin"], "--listen-api");
    }
}
