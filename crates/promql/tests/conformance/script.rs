//! The commands of a test script.

use slogate_series::Series;

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expect {
    /// `ordered`, `fail`, `warn`, `no_warn`, `info` or `no_info`.
    pub(crate) what: String,
    /// The exact text asked for; patterns are not checked.
    pub(crate) message: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum ExpectedValue {
    Scalar(f64),
    String(String),
    Series(Vec<Expected>),
    /// A range vector whose samples lie at start, start + step, …
    RangeVector {
        start_ms: i64,
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
    let mut starts: Option<Vec<Option<i64>>> = None;
    for line in &block[1..] {
        let (labels, rest) = notation::metric(line)?;
        if let Some(items) = rest.trim().strip_prefix("@st") {
            starts = Some(notation::start_times(items)?);
            continue;
        }
        let values = notation::sequence(rest)?;
        let samples = notation::samples(&values, &starts.take().unwrap_or_default(), interval_ms);
        series.retain(|earlier| earlier.labels != labels);
        series.push(Series { labels, samples });
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
            what: legacy.to_owned(),
            message: None,
        });
    }
    for line in &block[1..] {
        eval_line(&mut eval, line)?;
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
                eval.value = ExpectedValue::String(text.as_ref().to_owned());
            }
            "range" => {
                let words: Vec<&str> = words.0.split_whitespace().collect();
                let ["vector", "from", start, "to", _, "step", step] = words.as_slice() else {
                    return None;
                };
                eval.value = ExpectedValue::RangeVector {
                    start_ms: notation::duration_ms(start)?,
                    step_ms: notation::duration_ms(step)?,
                    series: Vec::new(),
                };
            }
            what => {
                let message = words
                    .0
                    .trim()
                    .strip_prefix("msg:")
                    .map(|m| m.trim().to_owned());
                eval.expects.push(Expect {
                    what: what.to_owned(),
                    message,
                });
            }
        }
        return Some(());
    }
    if line.starts_with("expected_fail") {
        return Some(());
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
    match &mut eval.value {
        ExpectedValue::Series(series) | ExpectedValue::RangeVector { series, .. } => {
            series.push(expected);
        }
        ExpectedValue::Scalar(_) | ExpectedValue::String(_) => return None,
    }
    Some(())
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
