//! PromQL with variables, and how a rollout's values get into it safely.
//!
//! - A variable is `$name` or `${name}`. An unknown name is a mistake.
//! - `$$` is one dollar. A `$` before anything but a letter, `_` or `{` is itself, and so are
//!   `$1` and `${1}`, which `label_replace` needs.
//! - Text variables stand inside of `"…"` or `'…'`, where their value is escaped. Behind `=~`
//!   and `!~` it is escaped as a regular expression too, so that it matches only itself.
//! - They can't stand in a raw string between backticks, which has no way to escape a backtick,
//!   nor outside of strings, where a value would be code.
//! - `$window` is a duration and stands anywhere, for example in `[$window]`.
//! - Comments are left alone.
//! - A value that is not known is no value: rendering fails rather than asking about `""`,
//!   which to PromQL means "no such label".

use std::fmt;
use std::ops::Range;

use crate::policy::reader::quoted;
use crate::policy::value::format_duration;

/// What a variable stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variable {
    /// `$version`: the version under judgement, as telemetry labels it.
    Version,
    /// `$baseline`: the version it is compared with.
    Baseline,
    /// `$service`: the service's name.
    Service,
    /// `$environment`: the environment's name.
    Environment,
    /// `$region`: the region, for deployments that are announced per region.
    Region,
    /// `$window`: the time since the evidence began, as a duration.
    Window,
}

/// The values for one rendering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vars {
    /// The version under judgement; empty where unknown.
    pub version: String,
    /// The version it is compared with, where there is one.
    pub baseline: Option<String>,
    /// The service's name.
    pub service: String,
    /// The environment's name; empty where telemetry carries none, and then that is the value.
    pub environment: String,
    /// The region, where there is one.
    pub region: Option<String>,
    /// The time since the evidence began in milliseconds; rendered as a second at least.
    pub window_ms: i64,
}

/// Why an expression can't be rendered: a variable in it has no value for this deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the query uses ${0}, which is not known for this deployment")]
pub struct MissingVariable(pub Variable);

/// What is wrong with the variables of an expression, in bytes of its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// The place.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

/// A PromQL expression with variables.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    source: String,
    slots: Vec<Slot>,
}

/// A place to fill: `source[span]` is replaced.
#[derive(Clone, Debug, PartialEq)]
struct Slot {
    span: Range<usize>,
    fill: Fill,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fill {
    /// `$$`.
    Dollar,
    /// A variable; escaped as a regular expression where `regex`.
    Variable {
        variable: Variable,
        quote: Option<char>,
        regex: bool,
    },
}

/// Where in the text a rendered text came from.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) text: String,
    /// For each slot: its place in the text and its place in the template.
    filled: Vec<(Range<usize>, Range<usize>)>,
}

impl Variable {
    /// Every variable.
    pub const ALL: [Variable; 6] = [
        Variable::Version,
        Variable::Baseline,
        Variable::Service,
        Variable::Environment,
        Variable::Region,
        Variable::Window,
    ];

    /// Its name, without the dollar.
    pub fn name(self) -> &'static str {
        match self {
            Variable::Version => "version",
            Variable::Baseline => "baseline",
            Variable::Service => "service",
            Variable::Environment => "environment",
            Variable::Region => "region",
            Variable::Window => "window",
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Template {
    /// Finds the variables of `source`; whether the rest is PromQL is not looked at.
    ///
    /// # Errors
    /// Every variable that is unknown or stands where its value can't be made safe.
    pub fn parse(source: &str) -> Result<Self, Vec<TemplateError>> {
        let mut scan = Scan {
            source,
            slots: Vec::new(),
            errors: Vec::new(),
        };
        scan.run();
        match scan.errors.is_empty() {
            true => Ok(Template {
                source: source.to_owned(),
                slots: scan.slots,
            }),
            false => Err(scan.errors),
        }
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the expression needs `variable`.
    pub fn uses(&self, variable: Variable) -> bool {
        let is =
            |slot: &Slot| matches!(slot.fill, Fill::Variable { variable: v, .. } if v == variable);
        self.slots.iter().any(is)
    }

    /// The expression with `vars` in place.
    ///
    /// # Errors
    /// When the expression uses a variable that has no value.
    pub fn render(&self, vars: &Vars) -> Result<String, MissingVariable> {
        self.render_with_places(vars).map(|rendered| rendered.text)
    }

    pub(super) fn render_with_places(&self, vars: &Vars) -> Result<Rendered, MissingVariable> {
        let mut rendered = Rendered {
            text: String::new(),
            filled: Vec::new(),
        };
        let mut from = 0;
        for slot in &self.slots {
            rendered.text.push_str(&self.source[from..slot.span.start]);
            let start = rendered.text.len();
            match slot.fill {
                Fill::Dollar => rendered.text.push('$'),
                Fill::Variable {
                    variable,
                    quote,
                    regex,
                } => {
                    let value = vars.value(variable).ok_or(MissingVariable(variable))?;
                    let value = if regex { escape_regex(&value) } else { value };
                    match quote {
                        Some(quote) => escape_string(&value, quote, &mut rendered.text),
                        None => rendered.text.push_str(&value),
                    }
                }
            }
            rendered
                .filled
                .push((start..rendered.text.len(), slot.span.clone()));
            from = slot.span.end;
        }
        rendered.text.push_str(&self.source[from..]);
        Ok(rendered)
    }
}

impl Vars {
    fn value(&self, variable: Variable) -> Option<String> {
        match variable {
            Variable::Version => Some(self.version.clone()).filter(|version| !version.is_empty()),
            Variable::Baseline => self.baseline.clone(),
            Variable::Service => Some(self.service.clone()),
            Variable::Environment => Some(self.environment.clone()),
            Variable::Region => self.region.clone(),
            Variable::Window => Some(format_duration(self.window_ms.max(1000) / 1000 * 1000)),
        }
    }
}

impl Rendered {
    /// The place in the template that a place in the rendered text came from.
    pub(super) fn place_in_template(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.offset(span.start, |place| place.start);
        let end = self.offset(span.end, |place| place.end);
        start..end.max(start)
    }

    fn offset(&self, at: usize, inside: impl Fn(&Range<usize>) -> usize) -> usize {
        let (mut text_end, mut template_end) = (0, 0);
        for (text, template) in &self.filled {
            if at < text.start {
                break;
            }
            if text.contains(&at) && at != text.start {
                return inside(template);
            }
            if at == text.start {
                return template.start;
            }
            (text_end, template_end) = (text.end, template.end);
        }
        template_end + at.saturating_sub(text_end)
    }
}

/// A walk over PromQL text that knows strings and comments and no more.
struct Scan<'s> {
    source: &'s str,
    slots: Vec<Slot>,
    errors: Vec<TemplateError>,
}

/// Where a variable stands.
#[derive(Clone, Copy)]
struct Within {
    quote: Option<char>,
    regex: bool,
}

impl Scan<'_> {
    fn run(&mut self) {
        let outside = Within {
            quote: None,
            regex: false,
        };
        let (mut within, mut at) = (outside, 0);
        while let Some(c) = self.source[at..].chars().next() {
            let next = at + c.len_utf8();
            match (within.quote, c) {
                (_, '$') => {
                    at = self.dollar(at, within);
                    continue;
                }
                (None, '"' | '\'' | '`') => {
                    let before = self.source[..at].trim_end();
                    let regex = before.ends_with("=~") || before.ends_with("!~");
                    within = Within {
                        quote: Some(c),
                        regex,
                    };
                }
                (None, '#') => {
                    at += self.source[at..]
                        .find('\n')
                        .unwrap_or(self.source.len() - at);
                    continue;
                }
                (Some('"' | '\''), '\\') => {
                    // What is escaped can't end the string; a dollar still starts a variable.
                    let escaped = self.source[next..].chars().next().filter(|c| *c != '$');
                    at = next + escaped.map_or(0, char::len_utf8);
                    continue;
                }
                (Some(quote), c) if c == quote => within = outside,
                _ => {}
            }
            at = next;
        }
    }

    /// Reads what starts with the dollar at `at` and returns where it ends.
    fn dollar(&mut self, at: usize, within: Within) -> usize {
        let rest = &self.source[at + 1..];
        if rest.starts_with('$') {
            self.slots.push(Slot {
                span: at..at + 2,
                fill: Fill::Dollar,
            });
            return at + 2;
        }
        let braced = rest.starts_with('{');
        let from = at + 1 + usize::from(braced);
        let is_name = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
        let length = self.source[from..].bytes().take_while(is_name).count();
        let name = &self.source[from..from + length];
        let starts_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let closed = self.source[from + length..].starts_with('}');
        if !starts_name || (braced && !closed) {
            return at + 1;
        }
        let span = at..from + length + usize::from(braced);
        let end = span.end;
        self.variable(name, span, within);
        end
    }

    fn variable(&mut self, name: &str, span: Range<usize>, within: Within) {
        let Some(variable) = Variable::ALL.into_iter().find(|v| v.name() == name) else {
            return self.errors.push(unknown(name, span));
        };
        let text = variable != Variable::Window;
        match within.quote {
            None if text => self.errors.push(TemplateError {
                message: format!("`${name}` has to stand inside of a string"),
                help: format!("put it in double quotes: \"${name}\""),
                span,
            }),
            Some('`') if text => self.errors.push(TemplateError {
                message: format!("`${name}` can't stand in a raw string, where nothing escapes it"),
                help: "use double quotes instead of backticks".to_owned(),
                span,
            }),
            quote => {
                let fill = Fill::Variable {
                    variable,
                    quote,
                    regex: within.regex,
                };
                self.slots.push(Slot { span, fill });
            }
        }
    }
}

fn unknown(name: &str, span: Range<usize>) -> TemplateError {
    let names = Variable::ALL.map(Variable::name);
    let help = match super::diagnostics::nearest(name, names) {
        Some(meant) => format!("did you mean `${meant}`?"),
        None => {
            let all = names.map(|name| format!("${name}")).join(", ");
            format!("the variables are {all}; write `$$` for a dollar sign")
        }
    };
    TemplateError {
        span,
        message: format!("unknown variable {}", quoted(&format!("${name}"))),
        help,
    }
}

/// Escapes `value` for a PromQL string, which follows Go's rules.
fn escape_string(value: &str, quote: char, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

/// Escapes what RE2 gives a meaning; it refuses a backslash before some other characters.
fn escape_regex(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vars() -> Vars {
        Vars {
            version: "4.2.0".to_owned(),
            baseline: Some("4.1.7".to_owned()),
            service: "checkout".to_owned(),
            environment: "production".to_owned(),
            region: None,
            window_ms: 90_500,
        }
    }

    fn render(source: &str, vars: &Vars) -> String {
        Template::parse(source).unwrap().render(vars).unwrap()
    }

    #[test]
    fn puts_values_in_place() {
        let cases = [
            ("up", "up"),
            (r#"up{v="$version"}"#, r#"up{v="4.2.0"}"#),
            (
                r#"up{v="$version-canary",b='${baseline}x'}"#,
                r#"up{v="4.2.0-canary",b='4.1.7x'}"#,
            ),
            (
                r#"up{v=~"$version|$baseline"}"#,
                r#"up{v=~"4\\.2\\.0|4\\.1\\.7"}"#,
            ),
            (r#"up{v !~ "$version$"}"#, r#"up{v !~ "4\\.2\\.0$"}"#),
            ("rate(x[$window])", "rate(x[1m30s])"),
            ("x # for $nobody \"\n+ y", "x # for $nobody \"\n+ y"),
            (
                r#"label_replace(x,"a","$1${2}","b","(.*)$")"#,
                r#"label_replace(x,"a","$1${2}","b","(.*)$")"#,
            ),
            (r#"x{a="$$version"}"#, r#"x{a="$version"}"#),
            (r#"x{a="\"$service"}"#, r#"x{a="\"checkout"}"#),
            ("x{a=`^a$`}", "x{a=`^a$`}"),
        ];
        for (source, expected) in cases {
            assert_eq!(render(source, &vars()), expected, "{source}");
        }
    }

    /// A version label comes from whoever sends telemetry; it must not be able to change the
    /// question that decides over it.
    #[test]
    fn a_hostile_version_stays_inside_its_string() {
        let mut vars = vars();
        vars.version = "\"} or vector(0) #\\\n\u{7}'`.*".to_owned();
        assert_eq!(
            render(r#"x{v="$version"}"#, &vars),
            r#"x{v="\"} or vector(0) #\\\n\x07'`.*"}"#
        );
        assert_eq!(
            render("x{v='$version'}", &vars),
            r#"x{v='"} or vector(0) #\\\n\x07\'`.*'}"#
        );
        assert!(render(r#"x{v=~"$version"}"#, &vars).contains(r"vector\\(0\\)"));
    }

    #[test]
    fn refuses_what_it_cannot_make_safe() {
        let cases = [
            (
                "up{v=$version}",
                "has to stand inside of a string",
                "\"$version\"",
            ),
            ("up{v=`$version`}", "raw string", "double quotes"),
            (
                r#"up{v="$versoin"}"#,
                "unknown variable `$versoin`",
                "`$version`",
            ),
            (
                r#"up{v="$zzzzzzzz"}"#,
                "unknown variable",
                "$baseline, $service",
            ),
            (
                "rate(x[$interval])",
                "unknown variable `$interval`",
                "$window",
            ),
        ];
        for (source, message, help) in cases {
            let errors = Template::parse(source).unwrap_err();
            assert_eq!(errors.len(), 1, "{source}");
            assert!(errors[0].message.contains(message), "{}", errors[0].message);
            assert!(errors[0].help.contains(help), "{}", errors[0].help);
            assert!(source[errors[0].span.clone()].starts_with('$'));
        }
    }

    #[test]
    fn a_value_that_is_not_known_is_not_the_empty_value() {
        let template = Template::parse(r#"up{v="$baseline",r="$region"}"#).unwrap();
        assert_eq!(
            template.render(&vars()),
            Err(MissingVariable(Variable::Region))
        );
        let nothing = Vars::default();
        assert_eq!(
            template.render(&nothing),
            Err(MissingVariable(Variable::Baseline))
        );
        assert!(template.uses(Variable::Region) && !template.uses(Variable::Version));
        let version = Template::parse(r#"up{v="$version"}"#).unwrap();
        assert_eq!(
            version.render(&nothing),
            Err(MissingVariable(Variable::Version))
        );
    }

    #[test]
    fn places_lead_back_to_the_template() {
        let source = r#"up{v="$version"} ++ $$"#;
        let template = Template::parse(source).unwrap();
        let rendered = template.render_with_places(&vars()).unwrap();
        let place = |text: &str| {
            let at = rendered.text.find(text).unwrap();
            source[rendered.place_in_template(&(at..at + text.len()))].to_owned()
        };
        assert_eq!(place("up"), "up");
        assert_eq!(place("++"), "++");
        assert_eq!(place("4.2.0"), "$version");
        assert_eq!(place(".2."), "$version");
        assert_eq!(place("\"4.2.0\""), "\"$version\"");
    }

    /// Reads a PromQL string back: the test's own idea of Go's escapes.
    fn unescape(text: &str) -> String {
        let (mut out, mut chars) = (String::new(), text.chars());
        while let Some(c) = chars.next() {
            if c != '\\' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('n') => out.push('\n'),
                Some('x') => {
                    let hex: String = chars.by_ref().take(2).collect();
                    out.push(char::from(u8::from_str_radix(&hex, 16).unwrap()));
                }
                Some(c) => out.push(c),
                None => panic!("a backslash at the end escapes the quote"),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn any_value_comes_back_out_of_its_string(version in "\\PC{1,20}|[\"'`\\\\\n$.*]{1,8}") {
            let mut vars = vars();
            vars.version = version.clone();
            let text = render(r#"x{v="$version"}"#, &vars);
            let inner = text.strip_prefix("x{v=\"").unwrap().strip_suffix("\"}").unwrap();
            prop_assert_eq!(unescape(inner), version.clone());
            let text = render(r#"x{v=~"$version"}"#, &vars);
            let inner = text.strip_prefix("x{v=~\"").unwrap().strip_suffix("\"}").unwrap();
            let pattern = regex::Regex::new(&format!("^(?:{})$", unescape(inner))).unwrap();
            prop_assert!(pattern.is_match(&version));
        }

        #[test]
        fn any_text_is_read_or_refused(source in "[a-z\"'`#$\\{}\\\\ \n=~é1]{0,30}") {
            if let Ok(template) = Template::parse(&source) {
                let mut vars = vars();
                vars.region = Some("eu".to_owned());
                let rendered = template.render_with_places(&vars).unwrap();
                let all = rendered.place_in_template(&(0..rendered.text.len()));
                prop_assert_eq!(all, 0..source.len());
            }
        }
    }
}
