//! The commands of a test script.

use regex::Regex;
use slogate_series::{Labels, Series};

use crate::notation::{self, Expected};

/// A command and the line it starts on.
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) kind: CommandKind,
}

pub(crate) enum CommandKind {
    Clear,
    Load {
        series: Vec<Series>,
        with_nhcb: bool,
    },
    Eval(Box<Eval>),
    /// Something this reader does not know.
    Unknown(String),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    Instant(i64),
    Range {
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Eval {
    pub(crate) when: When,
    pub(crate) query: String,
    pub(crate) expects: Vec<Expect>,
    pub(crate) value: ExpectedValue,
}

impl Eval {
    /// What is expected of `what`, in the order written.
    pub(crate) fn expected(&self, what: What) -> impl Iterator<Item = &Pattern> {
        let of_kind = self.expects.iter().filter(move |e| e.what == what);
        of_kind.map(|expect| &expect.pattern)
    }

    pub(crate) fn expects(&self, what: What) -> bool {
        self.expected(what).next().is_some()
    }
}

/// What an `expect` line, or the command's own name, is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Ordered,
    Fail,
    Warn,
    NoWarn,
    Info,
    NoInfo,
}

impl What {
    fn named(name: &str) -> Option<What> {
        Some(match name {
            "ordered" => What::Ordered,
            "fail" => What::Fail,
            "warn" => What::Warn,
            "no_warn" => What::NoWarn,
            "info" => What::Info,
            "no_info" => What::NoInfo,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Expect {
    what: What,
    pattern: Pattern,
}

/// What a message must be.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    Any,
    Exact(String),
    Regex(Regex),
}

impl Pattern {
    pub(crate) fn matches(&self, message: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Exact(text) => text == message,
            Pattern::Regex(regex) => regex.is_match(message),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum ExpectedValue {
    Scalar(f64),
    String(String),
    Series(Vec<Expected>),
    /// A range vector whose samples lie at start, start + step, …
    RangeVector {
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
        series: Vec<Expected>,
    },
}

pub(crate) fn parse(text: &str) -> Vec<Command> {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .map(|line| if line.starts_with('#') { "" } else { line })
        .collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if lines[at].is_empty() {
            at += 1;
            continue;
        }
        let line = at + 1;
        let first = lines[at]
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_lowercase();
        if first == "clear" {
            commands.push(Command {
                line,
                kind: CommandKind::Clear,
            });
            at += 1;
            continue;
        }
        let end = (at..lines.len())
            .find(|i| lines[*i].is_empty())
            .unwrap_or(lines.len());
        let block = &lines[at..end];
        let kind = if first.starts_with("load") {
            load(block)
        } else {
            eval(block)
        };
        let kind = kind.unwrap_or_else(|| CommandKind::Unknown(block.join("\n")));
        commands.push(Command { line, kind });
        at = end;
    }
    commands
}

fn load(block: &[&str]) -> Option<CommandKind> {
    let (command, interval) = block[0].split_once(char::is_whitespace)?;
    let interval_ms = notation::duration_ms(interval.trim())?;
    let mut series: Vec<Series> = Vec::new();
    let mut starts: Option<(Labels, Vec<Option<i64>>)> = None;
    for line in &block[1..] {
        let (labels, rest) = notation::metric(line)?;
        if let Some(items) = rest.strip_prefix("@st") {
            if starts.is_some() {
                return None;
            }
            starts = Some((labels, notation::start_times(items)?));
            continue;
        }
        let values = notation::sequence(rest)?;
        let starts = match starts.take() {
            Some((of, starts)) if of == labels && starts.len() == values.len() => starts,
            Some(_) => return None,
            None => Vec::new(),
        };
        let samples = notation::samples(&values, &starts, interval_ms);
        series.retain(|earlier| earlier.labels != labels);
        series.push(Series { labels, samples });
    }
    if starts.is_some() {
        return None;
    }
    Some(CommandKind::Load {
        series,
        with_nhcb: command.ends_with("_with_nhcb"),
    })
}

fn eval(block: &[&str]) -> Option<CommandKind> {
    let (command, rest) = block[0].split_once(char::is_whitespace)?;
    let mut words = Words(rest);
    let when = match words.next()? {
        "instant" if words.peek() == Some("at") => {
            words.next();
            When::Instant(notation::duration_ms(words.next()?)?)
        }
        "instant" => When::Instant(0),
        "range" => {
            let mut named = |name: &str| {
                (words.next()? == name)
                    .then(|| notation::duration_ms(words.next()?))
                    .flatten()
            };
            let (start_ms, end_ms, step_ms) = (named("from")?, named("to")?, named("step")?);
            When::Range {
                start_ms,
                end_ms,
                step_ms,
            }
        }
        _ => return None,
    };
    let mut eval = Eval {
        when,
        query: words.0.trim().to_owned(),
        expects: Vec::new(),
        value: ExpectedValue::Series(Vec::new()),
    };
    if let Some(legacy) = command.strip_prefix("eval_") {
        eval.expects.push(Expect {
            what: What::named(legacy)?,
            pattern: Pattern::Any,
        });
    }
    for line in &block[1..] {
        eval_line(&mut eval, line)?;
    }
    let contradict = [(What::Warn, What::NoWarn), (What::Info, What::NoInfo)];
    if contradict
        .iter()
        .any(|(yes, no)| eval.expects(*yes) && eval.expects(*no))
    {
        return None;
    }
    Some(CommandKind::Eval(Box::new(eval)))
}

fn eval_line(eval: &mut Eval, line: &str) -> Option<()> {
    let mut words = Words(line);
    if words.peek() == Some("expect") {
        words.next();
        match words.next()? {
            "string" => {
                let slogate_promql::ast::ExprKind::String(text) =
                    slogate_promql::parse(words.0.trim()).ok()?.kind
                else {
                    return None;
                };
                eval.value = ExpectedValue::String(text.text.as_ref().to_owned());
            }
            "range" => {
                let words: Vec<&str> = words.0.split_whitespace().collect();
                let ["vector", "from", start, "to", end, "step", step] = words.as_slice() else {
                    return None;
                };
                // The query is asked at the end of what it must give.
                eval.when = When::Instant(notation::duration_ms(end)?);
                eval.value = ExpectedValue::RangeVector {
                    start_ms: notation::duration_ms(start)?,
                    end_ms: notation::duration_ms(end)?,
                    step_ms: notation::duration_ms(step)?,
                    series: Vec::new(),
                };
            }
            what => {
                let what = What::named(what.trim_end())?;
                let pattern = pattern(words.0.trim())?;
                eval.expects.push(Expect { what, pattern });
            }
        }
        return Some(());
    }
    for (prefix, kind) in [
        ("expected_fail_message", "msg:"),
        ("expected_fail_regexp", "regex:"),
    ] {
        if let Some(text) = line.strip_prefix(prefix) {
            let pattern = pattern(&format!("{kind}{text}"))?;
            let what = What::Fail;
            eval.expects.retain(|expect| expect.what != what);
            eval.expects.push(Expect { what, pattern });
            return Some(());
        }
    }
    if let Some(value) = notation::number(line) {
        eval.value = ExpectedValue::Scalar(value);
        return Some(());
    }
    let (labels, rest) = notation::metric(line)?;
    let expected = Expected {
        labels,
        values: notation::sequence(rest)?,
    };
    let is_range_vector = matches!(eval.value, ExpectedValue::RangeVector { .. });
    match &mut eval.value {
        ExpectedValue::Series(series) | ExpectedValue::RangeVector { series, .. } => {
            let is_instant = matches!(eval.when, When::Instant(_));
            let several = expected.values.len() > 1;
            if is_instant && several && !is_range_vector {
                return None;
            }
            series.retain(|earlier| earlier.labels != expected.labels);
            series.push(expected);
        }
        ExpectedValue::Scalar(_) | ExpectedValue::String(_) => return None,
    }
    Some(())
}

/// What stands after `expect fail` and the like: nothing, `msg:` or `regex:` with a text.
fn pattern(text: &str) -> Option<Pattern> {
    if text.is_empty() {
        return Some(Pattern::Any);
    }
    if let Some(message) = text.strip_prefix("msg:") {
        return Some(Pattern::Exact(message.trim().to_owned()));
    }
    let regex = text.strip_prefix("regex:")?;
    Regex::new(regex.trim()).ok().map(Pattern::Regex)
}

/// Words from the front of a line; the rest stays as it is.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.0.split_whitespace().next()
    }

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        self.0 = &text[end..];
        (end > 0).then_some(&text[..end])
    }
}
