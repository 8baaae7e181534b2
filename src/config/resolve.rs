//! From layers to one value per setting.
//!
//! A flag wins over the environment, the environment over the file, the file over the default;
//! per setting, not per section. A value that another layer overrides is still read and must
//! be right: a mistake that waits for the day the flag is left off is the worse one. An empty
//! environment variable counts as not set, because shells and manifests leave them behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use super::file::{Leaf, LeafValue, SettingsFile};
use super::mistake::Mistake;
use super::suggest::nearest;
use super::table::{NAMED, SETTINGS, Setting, by_env, by_key, by_named_key};
use super::value::{Kind, Value};

/// Names in the environment that are ours and no settings.
const OTHER_ENV: &[&str] = &["SLOGATE_CONFIG", "SLOGATE_SERVER"];

/// What the outside says.
#[derive(Debug, Default)]
pub struct Layers {
    /// The settings file, where there is one.
    pub file: Option<SettingsFile>,
    /// The environment, whole; names that are not ours are left alone.
    pub env: Vec<(String, String)>,
    /// Flags that were given: the setting's key and the text.
    pub flags: Vec<(&'static str, String)>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing set it.
    Default,
    /// A line of a file.
    File(PathBuf, u64),
    /// An environment variable.
    Env(&'static str),
    /// A flag, without its dashes.
    Flag(&'static str),
}

/// `default`, `slogate.yaml:3`, `SLOGATE_LISTEN_API` or `--listen-api`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Env(name) => f.write_str(name),
            Origin::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// Every setting's value and where it came from.
#[derive(Clone, Debug, Default)]
pub struct Values {
    values: BTreeMap<&'static str, (Value, Origin)>,
    /// What is not wrong and yet worth saying.
    pub warnings: Vec<String>,
    /// Settings that some layer has wrong; checks across settings leave them out.
    wrong: BTreeSet<&'static str>,
    /// Below `sources`: the names in the file's order, and what each sets of `source`.
    scopes: Vec<(String, Values)>,
}

impl Values {
    /// Reads all layers: what is right in them, and every mistake.
    pub(super) fn resolve(layers: &Layers) -> (Self, Vec<Mistake>) {
        let mut values = Values::default();
        let mut mistakes = Vec::new();
        for setting in SETTINGS {
            if let Some(text) = setting.default
                && let Ok(value) = Value::parse(setting.kind, text)
            {
                values.set(setting, value, Origin::Default);
            }
        }
        if let Some(file) = &layers.file {
            values.take_file(file, &mut mistakes);
        }
        for (name, text) in &layers.env {
            match by_env(name) {
                Some(_) if text.is_empty() => {}
                Some(setting) => {
                    let origin = Origin::Env(setting.env);
                    values.take(setting, text, origin, &mut mistakes);
                }
                None if is_unknown_env(name) => values.warnings.push(unknown_env(name)),
                None => {}
            }
        }
        for (key, text) in &layers.flags {
            if let Some(setting) = by_key(key) {
                let origin = Origin::Flag(setting.flag);
                values.take(setting, text, origin, &mut mistakes);
            }
        }
        (values, mistakes)
    }

    fn take_file(&mut self, file: &SettingsFile, mistakes: &mut Vec<Mistake>) {
        for leaf in &file.leaves {
            if let Some((name, key)) = named_key(&leaf.key) {
                let scope = self.scope(name);
                scope.take_leaf(file, leaf, named_setting(key), mistakes);
            } else {
                self.take_leaf(file, leaf, setting_of(&leaf.key), mistakes);
            }
        }
    }

    /// What a named source sets.
    fn scope(&mut self, name: &str) -> &mut Values {
        let found = self.scopes.iter().position(|(known, _)| known == name);
        let at = found.unwrap_or_else(|| {
            self.scopes.push((name.to_owned(), Values::default()));
            self.scopes.len() - 1
        });
        &mut self.scopes[at].1
    }

    /// `found` is the setting that the leaf's key names, and the entry's name where it is part of
    /// a mapping.
    fn take_leaf(
        &mut self,
        file: &SettingsFile,
        leaf: &Leaf,
        found: Option<(&'static Setting, Option<&str>)>,
        mistakes: &mut Vec<Mistake>,
    ) {
        let read = match found {
            Some((setting, Some(name))) => self.read_entry(setting, name, leaf),
            Some((setting, None)) => read_leaf(setting, leaf),
            None => Err(LeafMistake {
                message: unknown_key(&leaf.key),
                help: suggest_key(&leaf.key),
                is_key: true,
            }),
        };
        let wrong = match read {
            Ok((setting, value)) => {
                let origin = Origin::File(file.path.clone(), leaf.key_place.line);
                return self.set(setting, value, origin);
            }
            Err(wrong) => wrong,
        };
        let place = match wrong.is_key {
            true => leaf.key_place,
            false => leaf.value_place,
        };
        self.wrong.extend(found.map(|(setting, _)| setting.key));
        let is_hidden = found.is_some_and(|(setting, _)| setting.kind.is_hidden());
        let shown = if is_hidden { "" } else { &file.text };
        let mistake = Mistake::new(file.path.display(), wrong.message).at(place, shown);
        mistakes.push(match wrong.help {
            Some(help) => mistake.help(help),
            None => mistake,
        });
    }

    /// The mapping that the file has so far, and one more entry.
    fn read_entry(
        &self,
        setting: &'static Setting,
        name: &str,
        leaf: &Leaf,
    ) -> Result<(&'static Setting, Value), LeafMistake> {
        let fail = |message: String| LeafMistake {
            message,
            help: None,
            is_key: false,
        };
        let LeafValue::Text(text) = &leaf.value else {
            return Err(fail(format!("{}: expected one value", leaf.key)));
        };
        let mut value = match self.get(setting.key) {
            Some((value, Origin::File(..))) => value.clone(),
            _ => Value::no_entries(setting.kind),
        };
        let added = value.add_entry(name, text);
        added.map_err(|message| fail(format!("{}: {message}", leaf.key)))?;
        Ok((setting, value))
    }

    fn take(
        &mut self,
        setting: &'static Setting,
        text: &str,
        origin: Origin,
        mistakes: &mut Vec<Mistake>,
    ) {
        match Value::parse(setting.kind, text) {
            Ok(value) => self.set(setting, value, origin),
            Err(message) => {
                self.wrong.insert(setting.key);
                mistakes.push(Mistake::new(origin, message));
            }
        }
    }

    /// Whether some layer has `key` wrong.
    pub(super) fn is_wrong(&self, key: &str) -> bool {
        self.wrong.contains(key)
    }

    fn set(&mut self, setting: &'static Setting, value: Value, origin: Origin) {
        self.values.insert(setting.key, (value, origin));
    }

    /// The value of `key` and where it came from; `None` where nothing sets it.
    pub fn get(&self, key: &str) -> Option<(&Value, &Origin)> {
        self.values.get(key).map(|(value, origin)| (value, origin))
    }

    /// Every setting that has a value as a line of YAML, without secrets and without the
    /// passwords that stand in URLs.
    pub fn shown(&self) -> String {
        let mut text = String::new();
        for setting in SETTINGS {
            if let Some((value, _)) = self.get(setting.key) {
                let shown = setting.shown(value);
                // Writing to a string can't fail.
                let _ = writeln!(text, "{}: {shown:?}", setting.key);
            }
        }
        text
    }

    /// The named sources in the file's order, each with what it sets.
    pub fn scopes(&self) -> impl Iterator<Item = (&str, &Values)> {
        self.scopes.iter().map(|(name, own)| (name.as_str(), own))
    }

    /// Every value that is set, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value, &Origin)> {
        self.values
            .iter()
            .map(|(key, (value, origin))| (*key, value, origin))
    }

    /// Where the first value stands.
    pub(super) fn place(&self) -> String {
        let first = self.values.values().next();
        first.map_or_else(|| "settings".to_owned(), |(_, origin)| origin.to_string())
    }

    /// Takes a value away.
    pub(super) fn unset(&mut self, key: &str) {
        self.values.remove(key);
    }

    /// Puts the values of `own` over these.
    pub(super) fn overlay(&mut self, own: &Values) {
        self.values.extend(own.values.clone());
        self.wrong.extend(own.wrong.iter().copied());
    }

    /// Fills a setting whose default is not a constant.
    pub fn set_default(&mut self, key: &'static str, value: Value) {
        self.values.entry(key).or_insert((value, Origin::Default));
    }
}

/// The setting of a key in the file, and the entry's name where it is part of a mapping.
fn setting_of(key: &str) -> Option<(&'static Setting, Option<&str>)> {
    if let Some(setting) = by_key(key) {
        return Some((setting, None));
    }
    let mut mappings = SETTINGS.iter().filter(|setting| setting.kind.is_mapping());
    mappings.find_map(|setting| {
        let name = key.strip_prefix(setting.key)?.strip_prefix('.')?;
        Some((setting, Some(name)))
    })
}

/// The same for a key below a named source.
fn named_setting(key: &str) -> Option<(&'static Setting, Option<&str>)> {
    if let Some(setting) = by_named_key(key) {
        return Some((setting, None));
    }
    let mut mappings = SETTINGS.iter().filter(|setting| setting.kind.is_mapping());
    mappings.find_map(|setting| {
        let own = setting.key.strip_prefix("source.")?;
        let name = key.strip_prefix(own)?.strip_prefix('.')?;
        Some((setting, Some(name)))
    })
}

/// `payments` and `timeout` of `sources.payments.timeout`.
fn named_key(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("sources.")?.split_once('.')
}

/// What is wrong with a leaf.
struct LeafMistake {
    message: String,
    help: Option<String>,
    /// Whether the key is to blame, and not the value.
    is_key: bool,
}

fn read_leaf(
    setting: &'static Setting,
    leaf: &Leaf,
) -> Result<(&'static Setting, Value), LeafMistake> {
    let fail = |found: &str, is_key| {
        Err(LeafMistake {
            message: format!("{}: found {found}, expected {}", leaf.key, setting.kind),
            help: None,
            is_key,
        })
    };
    let paths = |texts: &[String]| Value::Paths(texts.iter().map(PathBuf::from).collect());
    let value = match (&leaf.value, setting.kind) {
        (LeafValue::Nothing, _) => return fail("nothing", true),
        (LeafValue::Other, _) => return fail("a mapping or a nested list", false),
        (LeafValue::List(texts), Kind::Paths) => Ok(paths(texts)),
        (LeafValue::List(_), _) => return fail("a list", false),
        (LeafValue::Text(_), kind) if kind.is_mapping() => return fail("one value", false),
        // In the file a comma belongs to the path: several paths are a list there.
        (LeafValue::Text(text), Kind::Paths) => Ok(paths(std::slice::from_ref(text))),
        (LeafValue::Text(text), kind) => Value::parse(kind, text),
    };
    value
        .map(|value| (setting, value))
        .map_err(|message| LeafMistake {
            message: format!("{}: {message}", leaf.key),
            help: None,
            is_key: false,
        })
}

fn unknown_key(key: &str) -> String {
    let key: String = key.chars().take(100).collect();
    let section = SETTINGS.iter().any(|setting| {
        setting
            .key
            .strip_prefix(&key)
            .is_some_and(|rest| rest.starts_with('.'))
    });
    if section {
        format!("{key} is a section and needs settings below it")
    } else {
        format!("unknown setting {key}")
    }
}

fn suggest_key(key: &str) -> Option<String> {
    let near = match named_key(key) {
        None => nearest(key, SETTINGS.iter().map(|setting| setting.key)).map(str::to_owned),
        Some((name, own)) => {
            let all = SETTINGS.iter().chain(NAMED);
            let known = all.filter_map(|setting| setting.key.strip_prefix("source."));
            nearest(own, known).map(|near| format!("sources.{name}.{near}"))
        }
    };
    near.map(|near| format!("did you mean {near}?"))
        .or_else(|| Some("`slogate config --reference` lists every setting".to_owned()))
}

fn is_unknown_env(name: &str) -> bool {
    // Kubernetes gives every pod SLOGATE_SERVICE_HOST, SLOGATE_PORT_9560_TCP and so on where a
    // service is called slogate; they are nobody's mistake.
    let of_kubernetes = name.starts_with("SLOGATE_SERVICE_")
        || name == "SLOGATE_PORT"
        || name.starts_with("SLOGATE_PORT_");
    name.starts_with("SLOGATE_") && !of_kubernetes && !OTHER_ENV.contains(&name)
}

fn unknown_env(name: &str) -> String {
    match nearest(name, SETTINGS.iter().map(|setting| setting.env)) {
        Some(near) => format!("{name} is set and is no setting: did you mean {near}?"),
        None => format!("{name} is set and is no setting"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::mistake::Mistakes;

    fn layers(file: &str, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Layers {
        let file = (!file.is_empty())
            .then(|| SettingsFile::parse(Path::new("slogate.yaml"), file.to_owned()).unwrap());
        let owned = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
        Layers {
            file,
            env: env.iter().map(owned).collect(),
            flags: flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn flag_over_environment_over_file_over_default() {
        const FILE: &str = "judge:\n  interval: 20s\n";
        let env = ("SLOGATE_JUDGE_INTERVAL", "30s");
        let flag = ("judge.interval", "40s");
        let cases = [
            (layers("", &[], &[]), "10s", "default"),
            (layers(FILE, &[], &[]), "20s", "slogate.yaml:2"),
            (layers(FILE, &[env], &[]), "30s", "SLOGATE_JUDGE_INTERVAL"),
            (layers("", &[env], &[]), "30s", "SLOGATE_JUDGE_INTERVAL"),
            (layers(FILE, &[env], &[flag]), "40s", "--judge-interval"),
            (layers(FILE, &[], &[flag]), "40s", "--judge-interval"),
            (layers("", &[env], &[flag]), "40s", "--judge-interval"),
            (
                layers(FILE, &[("SLOGATE_JUDGE_INTERVAL", "")], &[]),
                "20s",
                "slogate.yaml:2",
            ),
        ];
        for (layers, value, origin) in cases {
            let (values, mistakes) = Values::resolve(&layers);
            assert!(mistakes.is_empty());
            let (found, from) = values.get("judge.interval").unwrap();
            assert_eq!(found.to_string(), value);
            assert_eq!(from.to_string(), origin);
            let (other, from) = values.get("ingest.flushInterval").unwrap();
            assert_eq!(other.to_string(), "5s", "layers win per setting");
            assert_eq!(*from, Origin::Default);
        }
    }

    #[test]
    fn all_mistakes_of_all_layers_are_told_with_their_places() {
        let layers = layers(
            "listen:\n  aip: 127.0.0.1:1\n  otlpGrpc: here\njudge: 5\nlog:\n  format: [json]\n  filter:\ncolour: red\n",
            &[("SLOGATE_STORE_SIZE_MAX", "2 GB")],
            &[("listen.api", "9560")],
        );
        let text = Mistakes(Values::resolve(&layers).1).to_string();
        let golden = "\
slogate.yaml:2:3: unknown setting listen.aip
    2 |   aip: 127.0.0.1:1
      |   ^^^
  help: did you mean listen.api?
slogate.yaml:3:13: listen.otlpGrpc: \"here\" is not an IP address and a port, for example 127.0.0.1:9560
    3 |   otlpGrpc: here
      |             ^^^^
slogate.yaml:4:1: judge is a section and needs settings below it
    4 | judge: 5
      | ^^^^^
  help: `slogate config --reference` lists every setting
slogate.yaml:6:11: log.format: found a list, expected pretty or json
    6 |   format: [json]
      |           ^
slogate.yaml:7:3: log.filter: found nothing, expected a line of text
    7 |   filter:
      |   ^^^^^^
slogate.yaml:8:1: unknown setting colour
    8 | colour: red
      | ^^^^^^
  help: `slogate config --reference` lists every setting
SLOGATE_STORE_SIZE_MAX: \"2 GB\" is not a size from 16MiB to 4TiB, for example 64MiB
--listen-api: \"9560\" is not an IP address and a port, for example 127.0.0.1:9560";
        assert_eq!(text, golden);
    }

    #[test]
    fn a_mistake_that_a_flag_overrides_is_still_a_mistake() {
        let layers = layers(
            "judge: { interval: soon }",
            &[],
            &[("judge.interval", "10s")],
        );
        assert_eq!(Values::resolve(&layers).1.len(), 1);
    }

    #[test]
    fn unknown_names_in_the_environment_are_warned_about() {
        let layers = layers(
            "",
            &[
                ("SLOGATE_LISTEN_AIP", "x"),
                ("SLOGATE_NOPE_NOPE", "x"),
                ("SLOGATE_SERVER", "http://x"),
                ("SLOGATE_SERVICE_HOST", "10.0.0.1"),
                ("SLOGATE_PORT_9560_TCP_ADDR", "10.0.0.1"),
                ("PATH", "/bin"),
            ],
            &[],
        );
        assert_eq!(
            Values::resolve(&layers).0.warnings,
            [
                "SLOGATE_LISTEN_AIP is set and is no setting: did you mean SLOGATE_LISTEN_API?",
                "SLOGATE_NOPE_NOPE is set and is no setting",
            ]
        );
    }

    #[test]
    fn headers_are_a_mapping_in_the_file_and_separated_by_commas_elsewhere() {
        let headers = |layers: &Layers| {
            let (values, mistakes) = Values::resolve(layers);
            assert!(mistakes.is_empty(), "{}", Mistakes(mistakes));
            values.get("source.headers").unwrap().0.clone()
        };
        let both = headers(&layers("", &[("SLOGATE_SOURCE_HEADERS", "A=1,B=2")], &[]));
        let in_file = layers("source: { headers: { A: 1, B: '2' } }", &[], &[]);
        assert_eq!(headers(&in_file), both);
        assert_eq!(both.to_string(), "A=(hidden),B=(hidden)");
        let env = [("SLOGATE_SOURCE_HEADERS", "B=2")];
        let replaced = headers(&layers("source: { headers: { A: 1 } }", &env, &[]));
        assert_eq!(replaced.to_string(), "B=(hidden)", "layers win per setting");
        let wrong = layers("source: { headers: { A: [1], 'b c': d } }", &[], &[]);
        assert_eq!(Values::resolve(&wrong).1.len(), 2);
    }

    #[test]
    fn paths_are_a_list_in_the_file_and_separated_by_commas_elsewhere() {
        let paths = |layers: &Layers| {
            let (values, mistakes) = Values::resolve(layers);
            assert!(mistakes.is_empty());
            values.get("policy.paths").unwrap().0.clone()
        };
        let both = Value::Paths(vec!["a".into(), "b".into()]);
        let in_file = layers("policy: { paths: [a, b] }", &[], &[]);
        assert_eq!(paths(&in_file), both);
        let in_env = layers("", &[("SLOGATE_POLICY_PATHS", "a, b")], &[]);
        assert_eq!(paths(&in_env), both);
        let one = layers("policy: { paths: 'a,b' }", &[], &[]);
        assert_eq!(paths(&one), Value::Paths(vec!["a,b".into()]));
    }
}
