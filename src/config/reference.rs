//! docs/configuration.md, written from the table.

use super::table::{NAMED, SETTINGS};
use super::value::Kind;

/// The reference in Markdown.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    let mut section = "";
    for setting in SETTINGS {
        let name = setting.key.split_once('.').map_or("", |(name, _)| name);
        if name != section || text.ends_with("## Settings\n") {
            let title = if name.is_empty() { "top level" } else { name };
            text.push_str(&format!("\n### {title}\n"));
            section = name;
        }
        let default = match setting.default {
            Some(default) => format!("`{default}`"),
            None => "not set".to_owned(),
        };
        let takes = match setting.kind {
            Kind::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                words.join(" or ")
            }
            kind => kind.to_string(),
        };
        text.push_str(&format!(
            "\n#### `{}`\n\n{}\n\n- Takes {takes}\n- Default: {default}\n- Environment: \
             `{}`\n- Flag: `--{}`\n",
            setting.key, setting.doc, setting.env, setting.flag
        ));
    }
    text.push_str(NAMED_SOURCES);
    for setting in NAMED {
        let key = setting.key.trim_start_matches("source.");
        text.push_str(&format!("- `{key}`: {}\n", setting.doc));
    }
    text
}

const NAMED_SOURCES: &str = "
### sources

Below `sources`, in the file only, each name is another source, for some services. It takes any
setting of `source`, without that prefix, and what it does not set it has from `source`; one with
a `url` of its own takes no credentials, headers, parameters or certificates from there. The first
in the file that is for a service and environment has their series; `source` has all others'.

```yaml
sources:
  payments:
    service: payments-*
    url: https://prometheus.payments.example.com
    mapping: istio
```

";

const HEAD: &str = "\
# Configuration

slogate runs without any configuration. Each setting can be given in a file, in the environment
and as a flag of `slogate serve`. A flag wins over the environment, the environment over the
file, the file over the default, for each setting on its own. `slogate config` prints what is
in effect and where each value came from.

The file is YAML: the one that `--config` or `SLOGATE_CONFIG` names, else `slogate.yaml` in the
working directory where there is one. An unknown key or a wrong value stops the start, with the
line and the column; all mistakes are told together. An unknown `SLOGATE_` variable is warned
about, an empty one counts as not set.

```yaml
listen:
  api: 127.0.0.1:9560
data:
  dir: /var/lib/slogate
policy:
  paths: [/etc/slogate/policies]
judge:
  interval: 10s
```

Durations are written as in Prometheus (`500ms`, `10s`, `1h30m`, `15d`), sizes in binary units
(`64MiB`, `2GiB`).

<!-- Written by `slogate config --reference`; edit src/config/table.rs. -->

## Settings
";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::file::SettingsFile;
    use crate::config::resolve::{Layers, Values};

    #[test]
    fn the_page_in_docs_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        if std::env::var_os("SLOGATE_UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, markdown()).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == markdown(),
            "run with SLOGATE_UPDATE_GOLDEN=1 to write docs/configuration.md"
        );
    }

    #[test]
    fn the_example_on_the_page_is_right() {
        let text = markdown();
        let yaml = text
            .split("```yaml\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .unwrap();
        let file = SettingsFile::parse(Path::new("example"), yaml.to_owned()).unwrap();
        assert_eq!(file.leaves.len(), 4);
        let layers = Layers {
            file: Some(file),
            ..Layers::default()
        };
        assert_eq!(Values::resolve(&layers).1, []);
    }
}
