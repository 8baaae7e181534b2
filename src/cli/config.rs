//! `slogate config`: the effective settings and where each came from.

use serde_json::json;

use super::Exit;
use super::flags::SettingFlags;
use super::output::{self, Output, OutputArgs};
use crate::config::Values;
use crate::config::reference;
use crate::config::table::{SETTINGS, by_key};
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
    let mut lines: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|setting| match values.get(setting.key) {
            Some((value, origin)) => (
                format!("{}: {}", setting.key, setting.shown(value)),
                origin.to_string(),
            ),
            None => (format!("{}:", setting.key), "not set".to_owned()),
        })
        .collect();
    lines.extend(named(values).map(|(key, shown, origin)| (format!("{key}: {shown}"), origin)));
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

/// What named sources set: key, value and origin.
fn named(values: &Values) -> impl Iterator<Item = (String, String, String)> {
    values.scopes().flat_map(|(name, own)| {
        own.iter().map(move |(key, value, origin)| {
            let own_key = key.strip_prefix("source.").unwrap_or(key);
            let setting = by_key(key);
            let shown = setting.map_or_else(|| value.to_string(), |setting| setting.shown(value));
            (
                format!("sources.{name}.{own_key}"),
                shown,
                origin.to_string(),
            )
        })
    })
}

/// `{"settings": [{"key", "value", "origin"}], "warnings": […]}`.
fn json_of(values: &Values) -> serde_json::Value {
    let mut settings: Vec<serde_json::Value> = SETTINGS
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
    settings.extend(
        named(values)
            .map(|(key, value, origin)| json!({ "key": key, "value": value, "origin": origin })),
    );
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

    #[test]
    fn named_sources_are_shown_without_their_secrets() {
        const FILE: &str = "sources:\n  shop:\n    service: shop\n    kind: prometheus\n    \
                            url: http://c:1\n    password: hunter2\n    username: u\n";
        let file = crate::config::file::SettingsFile::parse(
            std::path::Path::new("slogate.yaml"),
            FILE.to_owned(),
        );
        let layers = Layers {
            file: Some(file.unwrap()),
            ..Layers::default()
        };
        let (_, values) = Config::load(&layers).unwrap();
        let text = text(&values);
        assert!(text.contains("sources.shop.url: http://c:1"), "{text}");
        assert!(text.contains("sources.shop.password: (hidden)"), "{text}");
        assert!(!json_of(&values).to_string().contains("hunter2"));
    }
}
