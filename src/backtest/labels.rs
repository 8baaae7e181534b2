//! What is known about recorded rollouts: which were good, which bad, and since when.
//!
//! Labels stand in files called `labels.json`, `labels.jsonl`, `labels.csv` or `label.txt`, in the
//! rollout's own folder or in one above it; the nearest wins. Where there is none and every
//! rollout lies in a folder called after a label (`good/17`, `bad/4`), the folder is the label.
//!
//! - JSON: an object from rollout to label, a list (or lines) of objects that name the
//!   `rollout`, or in the rollout's own folder one object or word. A label is a word or an
//!   object with `label` and `onset`.
//! - CSV: a first line with the columns' names, `rollout`, `label` and perhaps `onset`.
//! - Text: the word alone.
//!
//! A rollout is named by its path below the path given, or by the last part of it. An onset is a
//! time, RFC 3339 or a number as timestamps are; what is smaller than any date is taken as
//! seconds since the rollout began.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};
use slogate_wire::openmetrics::timestamp_ms;

use super::folder::{self, FileKind};
use crate::model::time;

/// Whether a rollout was good or bad, as somebody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Truth {
    /// It should have passed.
    Good,
    /// It should have failed.
    Bad,
}

/// A rollout's label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Label {
    pub(crate) truth: Truth,
    pub(crate) onset: Option<Onset>,
}

/// When a bad rollout began to be bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Onset {
    /// At this time, in milliseconds since the epoch.
    At(i64),
    /// So many milliseconds after the rollout began.
    After(i64),
}

impl fmt::Display for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Truth::Good => "good",
            Truth::Bad => "bad",
        })
    }
}

impl Onset {
    /// The time, for a rollout that began at `start_ms`.
    pub(crate) fn at_ms(self, start_ms: i64) -> i64 {
        match self {
            Onset::At(ms) => ms,
            Onset::After(ms) => start_ms + ms,
        }
    }
}

impl Truth {
    /// The label that a word stands for.
    pub(crate) fn of(word: &str) -> Option<Truth> {
        let word = word.trim().trim_matches('"').to_ascii_lowercase();
        match word.as_str() {
            "good" | "pass" | "passed" | "benign" | "ok" | "healthy" | "normal" | "success"
            | "0" | "false" | "no" | "negative" | "safe" | "promote" | "accept" => {
                Some(Truth::Good)
            }
            "bad" | "fail" | "failed" | "defective" | "defect" | "faulty" | "fault"
            | "anomalous" | "anomaly" | "abnormal" | "failure" | "1" | "true" | "yes"
            | "positive" | "unsafe" | "broken" | "regression" | "regressed" | "degraded"
            | "rollback" | "reject" => Some(Truth::Bad),
            _ => None,
        }
    }

    fn of_value(value: &Value) -> Option<Truth> {
        match value {
            Value::String(word) => Truth::of(word),
            Value::Bool(is_bad) => Some(if *is_bad { Truth::Bad } else { Truth::Good }),
            Value::Number(number) => Truth::of(&number.to_string()),
            _ => None,
        }
    }
}

/// The labels of one folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels {
    /// By rollout.
    by_name: BTreeMap<String, Label>,
    /// Of the folder itself.
    own: Option<Label>,
}

impl Labels {
    /// The labels in the files of `folder`.
    ///
    /// # Errors
    /// With the file, and what was expected.
    pub(crate) fn of_folder(folder: &Path) -> Result<Labels, String> {
        let mut labels = Labels::default();
        let Ok(entries) = std::fs::read_dir(match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        }) else {
            return Ok(labels);
        };
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
        files.sort();
        for file in files {
            match folder::kind_of(&file) {
                FileKind::Labels => {}
                FileKind::About => {
                    labels.about(&file);
                    continue;
                }
                _ => continue,
            }
            let failed = |what: String| format!("{}: {what}", file.display());
            let bytes = folder::read(&file).map_err(|error| failed(error.to_string()))?;
            let text = String::from_utf8(bytes).map_err(|_| failed("is no UTF-8".to_owned()))?;
            labels.read(&file, &text).map_err(failed)?;
        }
        Ok(labels)
    }

    /// Takes the label of a file that may say other things, or nothing.
    fn about(&mut self, file: &Path) {
        let text = folder::read(file).unwrap_or_default();
        let value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        if let Some(label) = value.as_object().and_then(label_of) {
            self.own = self.own.or(Some(label));
        }
    }

    fn read(&mut self, file: &Path, text: &str) -> Result<(), String> {
        let name = file.to_string_lossy().to_ascii_lowercase();
        if name.contains(".csv") {
            return self.csv(text);
        }
        if name.contains(".txt") {
            let word = text.trim();
            if let Some(truth) = Truth::of(word) {
                self.own = Some(Label { truth, onset: None });
                return Ok(());
            }
            return self.words(text);
        }
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            return self.json(&value);
        }
        for (number, line) in (1..)
            .zip(text.lines())
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let value: Value = serde_json::from_str(line)
                .map_err(|error| format!("line {number}: expected JSON: {error}"))?;
            self.json(&value)
                .map_err(|what| format!("line {number}: {what}"))?;
        }
        Ok(())
    }

    /// Lines of a rollout and its label.
    fn words(&mut self, text: &str) -> Result<(), String> {
        for (number, line) in (1..)
            .zip(text.lines())
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let split = line.trim().rsplit_once([' ', '\t', ',', ':', '=']);
            let label = split.and_then(|(name, word)| Some((name, Truth::of(word)?)));
            let (name, truth) = label.ok_or_else(|| format!("line {number}: {EXPECTED}"))?;
            let name = name.trim_end_matches([' ', '\t', ',', ':', '=']);
            self.put(name, Label { truth, onset: None });
        }
        Ok(())
    }

    fn json(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::Array(entries) => entries.iter().try_for_each(|entry| self.json(entry)),
            Value::Object(members) => self.object(members),
            value => {
                let truth = Truth::of_value(value).ok_or(EXPECTED)?;
                self.own = Some(Label { truth, onset: None });
                Ok(())
            }
        }
    }

    fn object(&mut self, members: &Map<String, Value>) -> Result<(), String> {
        let name = text_of(members, &["rollout", "name", "id", "folder", "run", "case"]);
        if let Some(label) = label_of(members) {
            match name {
                Some(name) => self.put(&name, label),
                None => self.own = Some(label),
            }
            return Ok(());
        }
        if members.len() == 1
            && let Some(inside @ (Value::Object(_) | Value::Array(_))) =
                members.get("labels").or_else(|| members.get("rollouts"))
        {
            return self.json(inside);
        }
        for (name, value) in members {
            let label = match value {
                Value::Object(inside) => label_of(inside),
                value => Truth::of_value(value).map(|truth| Label { truth, onset: None }),
            };
            let label = label.ok_or_else(|| format!("{name:?}: {EXPECTED}"))?;
            self.put(name, label);
        }
        Ok(())
    }

    fn csv(&mut self, text: &str) -> Result<(), String> {
        let mut lines = (1..)
            .zip(text.lines())
            .filter(|(_, line)| !line.trim().is_empty());
        let cells = |line: &str| -> Vec<String> {
            let cells = line.split([',', ';', '\t']);
            cells
                .map(|cell| cell.trim().trim_matches('"').to_owned())
                .collect()
        };
        let Some((_, first)) = lines.next() else {
            return Ok(());
        };
        let header: Vec<String> = cells(first)
            .iter()
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let column = |names: &[&str]| {
            header
                .iter()
                .position(|name| names.contains(&name.as_str()))
        };
        let label_at = column(&LABEL);
        let name_at = column(&["rollout", "name", "id", "folder", "run", "case"]).unwrap_or(0);
        let onset_at = column(&ONSET);
        let mut rows: Vec<(usize, Vec<String>)> = Vec::new();
        if label_at.is_none() {
            // No names of columns: the first line is a row.
            rows.push((1, cells(first)));
        }
        rows.extend(lines.map(|(number, line)| (number, cells(line))));
        for (number, row) in rows {
            let cell = |at: usize| row.get(at).map(String::as_str).unwrap_or_default();
            let truth = Truth::of(cell(label_at.unwrap_or(1)));
            let truth = truth.ok_or_else(|| format!("line {number}: {EXPECTED}"))?;
            let onset = onset_at.map(cell).filter(|text| !text.is_empty());
            let onset = match onset {
                Some(text) => Some(onset_of_text(text).ok_or_else(|| {
                    format!("line {number}: expected a time as onset, found {text:?}")
                })?),
                None => None,
            };
            self.put(cell(name_at), Label { truth, onset });
        }
        Ok(())
    }

    fn put(&mut self, name: &str, label: Label) {
        let name = name.trim().trim_matches('/').to_owned();
        self.by_name.insert(name, label);
    }

    /// The label of the rollout called `name`, whose own folder this is or is not.
    pub(crate) fn of(&self, name: &str, is_own_folder: bool) -> Option<Label> {
        let last = name.rsplit('/').next().unwrap_or(name);
        let named = self.by_name.get(name).or_else(|| self.by_name.get(last));
        named.copied().or(self.own.filter(|_| is_own_folder))
    }
}

const EXPECTED: &str = "expected good or bad (or pass, fail, benign, defective, 0, 1, true, false)";

const LABEL: [&str; 8] = [
    "label",
    "truth",
    "verdict",
    "class",
    "outcome",
    "defective",
    "bad",
    "is_bad",
];

const ONSET: [&str; 5] = [
    "onset",
    "onset_time",
    "onsetat",
    "fault_time",
    "fault_start",
];

fn text_of(members: &Map<String, Value>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| match members.get(*name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

fn label_of(members: &Map<String, Value>) -> Option<Label> {
    let truth = LABEL
        .iter()
        .find_map(|name| Truth::of_value(members.get(*name)?))?;
    let onset = ONSET.iter().find_map(|name| match members.get(*name)? {
        Value::String(text) => onset_of_text(text),
        Value::Number(number) => onset_of_number(number.as_f64()?),
        _ => None,
    });
    Some(Label { truth, onset })
}

fn onset_of_text(text: &str) -> Option<Onset> {
    if let Some(ms) = time::from_rfc3339(text) {
        return Some(Onset::At(ms));
    }
    onset_of_number(text.parse().ok()?)
}

/// Below ten years after 1970 no recording was made: such a number counts from the start.
fn onset_of_number(number: f64) -> Option<Onset> {
    match number < 315_360_000.0 {
        true => timestamp_ms(number).map(Onset::After),
        false => timestamp_ms(number).map(Onset::At),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, text: &str) -> Result<Labels, String> {
        let mut labels = Labels::default();
        labels.read(Path::new(file), text)?;
        Ok(labels)
    }

    fn label(truth: Truth, onset: Option<Onset>) -> Option<Label> {
        Some(Label { truth, onset })
    }

    #[test]
    fn every_form_is_read() {
        let at = Onset::At(1_700_000_000_000);
        let forms = [
            (
                "labels.json",
                r#"{"a/1": "bad", "2": {"label": "benign", "onset": 90}}"#,
            ),
            (
                "labels.json",
                r#"{"rollouts":[{"rollout": "1", "label": 1}, {"rollout": "2", "label": false, "onset": "90"}]}"#,
            ),
            (
                "labels.jsonl",
                "{\"rollout\": \"1\", \"truth\": \"fail\"}\n\n{\"id\": 2, \"truth\": \"pass\", \"onset\": 90.0}\n",
            ),
            (
                "labels.csv",
                "rollout,label,onset\n1,defective,\n\"2\",good,90\n",
            ),
            ("labels.txt", "1: bad\n2 good\n"),
        ];
        for (file, text) in forms {
            let labels = read(file, text).unwrap();
            assert_eq!(labels.of("a/1", false), label(Truth::Bad, None), "{text}");
            let second = labels.of("a/2", false).unwrap();
            assert_eq!(second.truth, Truth::Good, "{text}");
            assert_eq!(labels.of("3", true), None);
        }
        let own = read("label.json", r#"{"label": "bad", "onset": 1700000000}"#).unwrap();
        assert_eq!(own.of("x", true), label(Truth::Bad, Some(at)));
        assert_eq!(own.of("x", false), None);
        let own = read("label.txt", " Good\n").unwrap();
        assert_eq!(own.of("x", true), label(Truth::Good, None));
        assert_eq!(Onset::After(5).at_ms(10), 15);
    }

    #[test]
    fn what_is_no_label_is_said() {
        let error = read("labels.csv", "rollout,label\na,dunno\n").unwrap_err();
        assert!(error.starts_with("line 2: expected good or bad"), "{error}");
        assert!(read("labels.json", r#"{"a": "dunno"}"#).is_err());
        assert!(read("labels.json", "{").is_err());
    }
}
