//! `kayenta`: a canary config of Kayenta's, and how its queries get their scope.
//!
//! The config is Kayenta's own JSON, in a file beside the policy or written out. What Kayenta
//! ignores is ignored; a word it would take for its default (an unknown `direction`, say) is a
//! mistake here. Its Prometheus queries are made as Kayenta makes them: a template, inline or by
//! name, whose `${scope}`, `${location}` and other names are filled in, and which is the whole
//! query behind `PromQL:`, else the label matchers of `avg(metric{…}) by (…)`. What is filled in
//! may hold slogate's variables, so that `${scope}` becomes each side's `$version`.
//!
//! A query may also be `{ type: promql, expr: … }` with slogate's variables in it. So a gate
//! writes its config when it is shown.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;

use slogate_stats::kayenta::{
    Direction, EffectSize, Measure, MetricConfig, NanStrategy, Outliers, Thresholds,
};

use crate::policy::diagnostics::SourceFile;
use crate::policy::parse::series::{horizon, step};
use crate::policy::reader::{self, Field, Fields, Mistakes, quoted};
use crate::policy::yaml::{Node, Value};
use crate::policy::{
    BaselinePreference, KayentaCheck, KayentaMetric, Template, Variable, Word, defaults, promql,
    set, value,
};

const METRICS_MAX: usize = 200;
const TEXT_MAX: usize = 4096;

/// What the names of Kayenta's templates stand for, as text of a slogate template.
type Bindings = BTreeMap<String, String>;

/// The check under `kayenta`.
pub(super) fn kayenta(field: Field<'_>, m: &mut Mistakes) -> Option<KayentaCheck> {
    let mut fields = Fields::of(field.node, &field.key.span, "`kayenta`", m)?;
    let help = "add `config: canary.json`, a file beside this one, or the config itself";
    let config = fields.need("config", help, m);
    let mut bindings = Bindings::from([("scope".to_owned(), "$version".to_owned())]);
    for name in ["scope", "location"] {
        if let Some(field) = fields.take(name)
            && let Some(text) = text_of(field, m)
        {
            bindings.insert(name.to_owned(), text);
        }
    }
    if let Some(params) = fields.take("params") {
        bindings.extend(texts(params, m)?);
    }
    let step_ms = step(&mut fields, defaults::KAYENTA_STEP_MS, m);
    let (pass, marginal) = (fields.take("pass"), fields.take("marginal"));
    let times = (fields.take("after"), fields.take("every"));
    let against = fields.take_or("against", BaselinePreference::default(), m, |field, m| {
        field.word(m)
    });
    fields.finish(&[], m);
    let horizon = horizon(times, m);
    let config = config.and_then(|config| match &config.node.value {
        Value::Scalar(path) => config_in_file(config, path, &bindings, m),
        _ => read_config(config.node, &config.key.span, &bindings, m),
    });
    let score = |field: Option<Field<'_>>, m: &mut Mistakes| match field {
        Some(field) => field
            .scalar("a score from 0 to 100", "", m, a_score)
            .map(Some),
        None => Some(None),
    };
    let (pass_field, pass, marginal) = (pass, score(pass, m)?, score(marginal, m)?);
    let config = config?;
    let thresholds = Thresholds {
        pass: pass.or(config.pass).unwrap_or(defaults::KAYENTA_PASS),
        marginal: marginal
            .or(config.marginal)
            .unwrap_or(defaults::KAYENTA_MARGINAL),
    };
    if thresholds.marginal > thresholds.pass {
        let place = pass_field.map_or(&field.key.span, |field| &field.key.span);
        let message = "no score is marginal: `marginal` is above `pass`";
        let label = format!("{} is below {}", thresholds.pass, thresholds.marginal);
        m.add(place, message, label, "lower `marginal`, or raise `pass`");
        return None;
    }
    Some(KayentaCheck {
        metrics: config.metrics,
        group_weights: config.group_weights,
        thresholds,
        step_ms: step_ms?,
        horizon: horizon?,
        against: against?,
    })
}

/// What is read of a canary config.
struct Config {
    metrics: Vec<KayentaMetric>,
    group_weights: BTreeMap<String, f64>,
    pass: Option<f64>,
    marginal: Option<f64>,
}

/// A config in a file of its own, whose mistakes are shown in that file.
fn config_in_file(
    field: Field<'_>,
    path: &str,
    bindings: &Bindings,
    m: &mut Mistakes,
) -> Option<Config> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let relative = Path::new(path);
    if path.is_empty() || !relative.components().all(plain) {
        let expected = "a file in the policy's own directory or below it, such as canary.json";
        field.wrong(expected, "copy it there", m);
        return None;
    }
    let directory = Path::new(&m.file.name).parent().unwrap_or(Path::new(""));
    let path = directory.join(relative);
    // Kayenta's files are JSON, where tabs may indent and can't stand in strings; YAML has it the
    // other way round. One byte for one byte, so that places stay true.
    let text = match set::read_file(&path) {
        Ok(text) => text.replace('\t', " "),
        Err(error) => {
            let message = format!("{} can't be read: {error}", path.display());
            m.add(field.span(), message, "named here", "check the path");
            return None;
        }
    };
    let file = SourceFile {
        name: path.display().to_string(),
        text,
    };
    let (documents, mut inner) = reader::documents(&Arc::new(file), |_| None);
    let config = match documents.as_slice() {
        [document] => read_config(document, &document.span, bindings, &mut inner),
        _ if inner.is_empty() => {
            let help = "a canary config is one JSON object";
            inner.add(&(0..0), "there is no canary config in this file", "", help);
            None
        }
        _ => None,
    };
    m.take_over(inner.finish());
    config
}

fn read_config(
    node: &Node,
    owner: &std::ops::Range<usize>,
    bindings: &Bindings,
    m: &mut Mistakes,
) -> Option<Config> {
    let mut fields = Fields::of(node, owner, "a canary config", m)?;
    let templates = match fields.take("templates") {
        Some(field) => texts(field, m)?,
        None => BTreeMap::new(),
    };
    let metrics = fields.need(
        "metrics",
        "a canary config without metrics judges nothing",
        m,
    );
    let metrics = metrics.and_then(|field| {
        let Value::List(items) = &field.node.value else {
            field.wrong("a list of metrics", "", m);
            return None;
        };
        if items.is_empty() || items.len() > METRICS_MAX {
            let message = format!(
                "a canary config has 1 to {METRICS_MAX} metrics, not {}",
                items.len()
            );
            m.add(field.span(), message, "this list", "");
            return None;
        }
        let read = items
            .iter()
            .map(|item| metric(item, &templates, bindings, m));
        let read: Vec<Option<KayentaMetric>> = read.collect();
        let metrics = read.into_iter().collect::<Option<Vec<_>>>()?;
        names_differ(&field, &metrics, m)?;
        Some(metrics)
    });
    let (mut group_weights, mut pass, mut marginal) = (BTreeMap::new(), None, None);
    if let Some(field) = fields.take("classifier") {
        let mut classifier = Fields::of(field.node, &field.key.span, "`classifier`", m)?;
        if let Some(weights) = classifier.take("groupWeights") {
            for (name, text) in texts(weights, m)? {
                let weight = value::number(&text);
                if weight.is_none() {
                    let message = format!("the weight of group {} is no number", quoted(&name));
                    m.add(weights.span(), message, "in here", "");
                }
                group_weights.insert(name, weight?);
            }
        }
        if let Some(field) = classifier.take("scoreThresholds") {
            let mut thresholds = Fields::of(field.node, &field.key.span, "`scoreThresholds`", m)?;
            let mut score = |name| {
                let field = thresholds.take(name)?;
                field.scalar("a score from 0 to 100", "", m, a_score)
            };
            (pass, marginal) = (score("pass"), score("marginal"));
        }
    }
    Some(Config {
        metrics: metrics?,
        group_weights,
        pass,
        marginal,
    })
}

fn names_differ(field: &Field<'_>, metrics: &[KayentaMetric], m: &mut Mistakes) -> Option<()> {
    let mut names: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    });
    let Some(name) = twice else { return Some(()) };
    let message = format!("two metrics are named {}", quoted(name));
    m.add(
        &field.key.span,
        message,
        "in here",
        "give each metric a name of its own",
    );
    None
}

fn metric(
    item: &Node,
    templates: &Bindings,
    bindings: &Bindings,
    m: &mut Mistakes,
) -> Option<KayentaMetric> {
    let mut fields = Fields::of(item, &item.span, "a metric", m)?;
    let name = fields
        .need("name", "add `name`", m)
        .and_then(|field| text_of(field, m));
    let query = fields.need("query", "add `query`", m);
    let expr = query.and_then(|field| query_of(field, templates, bindings, m));
    let groups = match fields.take("groups") {
        Some(field) => list(field, m),
        None => Some(Vec::new()),
    };
    let config = match fields.take("analysisConfigurations") {
        None => Some(MetricConfig::default()),
        Some(field) => {
            let mut fields =
                Fields::of(field.node, &field.key.span, "`analysisConfigurations`", m)?;
            match fields.take("canary") {
                None => Some(MetricConfig::default()),
                Some(field) => analysis(field, m),
            }
        }
    };
    Some(KayentaMetric {
        name: name?,
        expr: expr?,
        groups: groups?,
        config: config?,
    })
}

fn analysis(field: Field<'_>, m: &mut Mistakes) -> Option<MetricConfig> {
    let mut fields = Fields::of(field.node, &field.key.span, "`canary`", m)?;
    let direction = fields.take_or("direction", Direction::default(), m, |f, m| f.word(m));
    let nan_strategy = fields.take_or("nanStrategy", NanStrategy::default(), m, |f, m| f.word(m));
    let mut flag = |name| fields.take_or(name, false, m, |field, m| field.boolean(m));
    let flags = [flag("critical"), flag("mustHaveData"), flag("muted")];
    let effect = fields.take_or("effectSize", EffectSize::any(Measure::default()), m, effect);
    let outliers = fields.take_or("outliers", Outliers::default(), m, outliers);
    let [critical, must_have_data, muted] = flags;
    Some(MetricConfig {
        direction: direction?,
        nan_strategy: nan_strategy?,
        critical: critical?,
        must_have_data: must_have_data?,
        muted: muted?,
        effect: effect?,
        outliers: outliers?,
    })
}

fn effect(field: Field<'_>, m: &mut Mistakes) -> Option<EffectSize> {
    let mut fields = Fields::of(field.node, &field.key.span, "`effectSize`", m)?;
    let measure = fields.take_or("measure", Measure::default(), m, |field, m| field.word(m))?;
    let any = EffectSize::any(measure);
    let mut number = |name, default| {
        fields.take_or(name, default, m, |field: Field<'_>, m: &mut Mistakes| {
            field.scalar("a number", "", m, value::number)
        })
    };
    let found = [
        number("allowedIncrease", any.allowed_increase),
        number("allowedDecrease", any.allowed_decrease),
        number("criticalIncrease", any.critical_increase),
        number("criticalDecrease", any.critical_decrease),
    ];
    let [
        allowed_increase,
        allowed_decrease,
        critical_increase,
        critical_decrease,
    ] = found;
    Some(EffectSize {
        measure,
        allowed_increase: allowed_increase?,
        allowed_decrease: allowed_decrease?,
        critical_increase: critical_increase?,
        critical_decrease: critical_decrease?,
    })
}

fn outliers(field: Field<'_>, m: &mut Mistakes) -> Option<Outliers> {
    let mut fields = Fields::of(field.node, &field.key.span, "`outliers`", m)?;
    let removes = fields.take_or("strategy", false, m, |field, m| {
        field
            .word::<OutlierWord>(m)
            .map(|word| word == OutlierWord::Remove)
    });
    let factor = fields.take_or("outlierFactor", 3.0, m, |field, m| {
        field.scalar("a number above 0", "", m, |text| {
            value::number(text).filter(|factor| *factor > 0.0)
        })
    });
    let (removes, factor) = (removes?, factor?);
    Some(if removes {
        Outliers::Remove { factor }
    } else {
        Outliers::Keep
    })
}

/// A metric's query as a template of slogate's.
fn query_of(
    field: Field<'_>,
    templates: &Bindings,
    bindings: &Bindings,
    m: &mut Mistakes,
) -> Option<Template> {
    let mut fields = Fields::of(field.node, &field.key.span, "`query`", m)?;
    let kind = fields.need("type", "add `type: prometheus`", m)?;
    let kind = kind.scalar(
        "prometheus, or promql with an `expr`",
        "slogate asks Prometheus and what speaks its language",
        m,
        |text| matches!(text, "prometheus" | "promql").then(|| text.to_owned()),
    )?;
    let text = if kind == "promql" {
        let expr = fields.need("expr", "add `expr` with `$version` in it", m)?;
        expr.scalar("a PromQL expression", "", m, |text| Some(text.to_owned()))?
    } else {
        match prometheus(&mut fields, templates, bindings, m)? {
            Ok(text) => text,
            Err(message) => {
                m.add(&field.key.span, message, "this query", "");
                return None;
            }
        }
    };
    let wrong = |message: String, help: &str, m: &mut Mistakes| {
        let message = format!("the query is not usable: {message}");
        m.add(
            &field.key.span,
            message,
            format!("becomes {}", quoted(&text)),
            help,
        );
        None
    };
    let template = match Template::parse(&text) {
        Ok(template) => template,
        Err(errors) => {
            let error = errors.into_iter().next()?;
            return wrong(error.message, &error.help, m);
        }
    };
    if let Err(error) = promql::check(&template) {
        return wrong(error.message, error.help, m);
    }
    if !template.uses(Variable::Version) {
        let message = "it asks the same of both sides".to_owned();
        return wrong(message, "select the side's series by `${scope}`", m);
    }
    Some(template)
}

/// The query that Kayenta makes for Prometheus; the inner error is what Kayenta refuses as well.
fn prometheus(
    fields: &mut Fields<'_>,
    templates: &Bindings,
    bindings: &Bindings,
    m: &mut Mistakes,
) -> Option<Result<String, String>> {
    let mut text = |name| match fields.take(name) {
        Some(field) if !matches!(field.node.value, Value::Null) => text_of(field, m).map(Some),
        _ => Some(None),
    };
    let metric = text("metricName")?;
    let (inline, by_name) = (text("customInlineTemplate")?, text("customFilterTemplate")?);
    let resource = text("resourceType")?;
    let mut labels = |name| match fields.take(name) {
        Some(field) => list(field, m),
        None => Some(Vec::new()),
    };
    let (matchers, by) = (labels("labelBindings")?, labels("groupByFields")?);
    let template = match (inline.filter(|text| !text.is_empty()), by_name) {
        (Some(inline), _) => inline,
        (None, Some(name)) => match templates.get(&name) {
            Some(template) => template.clone(),
            None => return Some(Err(format!("there is no template {}", quoted(&name)))),
        },
        (None, None) => {
            let message = "it has neither `customInlineTemplate` nor `customFilterTemplate`";
            return Some(Err(message.to_owned()));
        }
    };
    let mut bindings = bindings.clone();
    if let Some(resource) = resource {
        bindings
            .entry("resourceType".to_owned())
            .or_insert_with(|| literal(&resource));
    }
    let filter = match expand(&template, &bindings) {
        Ok(filter) => filter,
        Err(message) => return Some(Err(message)),
    };
    if let Some(whole) = filter.strip_prefix("PromQL:") {
        return Some(Ok(whole.to_owned()));
    }
    let Some(metric) = metric.filter(|metric| !metric.is_empty()) else {
        return Some(Err("it has no `metricName`".to_owned()));
    };
    let matchers = matchers.iter().map(|text| literal(text));
    let filters: Vec<String> = std::iter::once(filter).chain(matchers).collect();
    let by = match by.is_empty() {
        true => String::new(),
        false => format!(" by ({})", by.join(",")),
    };
    let metric = literal(&metric);
    Some(Ok(format!("avg({metric}{{{}}}){by}", filters.join(","))))
}

/// Fills in a template of Kayenta's: `${name}`, `${name:-default}`; `$${…}` and `$\{…}` are not
/// filled in and filled in, as there.
fn expand(template: &str, bindings: &Bindings) -> Result<String, String> {
    let template = template.replace("$\\{", "${");
    let (mut text, mut rest) = (String::new(), template.as_str());
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        let Some(end) = after.find('}') else {
            return Err("a `${` of its template has no `}`".to_owned());
        };
        let (slot, left) = after.split_at(end + 1);
        if let Some(escaped) = before.strip_suffix('$') {
            text.push_str(&literal(escaped));
            text.push_str(&literal(slot));
        } else {
            text.push_str(&literal(before));
            let name = slot.trim_start_matches("${").trim_end_matches('}');
            let (name, default) = match name.split_once(":-") {
                Some((name, default)) => (name, Some(literal(default))),
                None => (name, None),
            };
            let value = bindings.get(name).cloned().or(default);
            text.push_str(
                &value.ok_or_else(|| {
                    format!("nothing is known of `${{{name}}}`: say it in `params`")
                })?,
            );
        }
        rest = left;
    }
    text.push_str(&literal(rest));
    Ok(text)
}

/// Text in which a dollar is a dollar.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn a_score(text: &str) -> Option<f64> {
    value::number(text).filter(|score| (0.0..=100.0).contains(score))
}

fn text_of(field: Field<'_>, m: &mut Mistakes) -> Option<String> {
    let expected = format!("text of at most {TEXT_MAX} bytes");
    field.scalar(&expected, "", m, |text| {
        (text.len() <= TEXT_MAX).then(|| text.to_owned())
    })
}

/// A mapping of names to texts.
fn texts(field: Field<'_>, m: &mut Mistakes) -> Option<Bindings> {
    let Value::Map(entries) = &field.node.value else {
        if matches!(field.node.value, Value::Null) {
            return Some(Bindings::new());
        }
        field.wrong("a mapping of names to texts", "", m);
        return None;
    };
    let read = entries.iter().map(|(key, node)| {
        let text = text_of(Field { key, node }, m)?;
        Some((key.name.clone(), text))
    });
    read.collect::<Vec<_>>().into_iter().collect()
}

/// A list of texts.
fn list(field: Field<'_>, m: &mut Mistakes) -> Option<Vec<String>> {
    let items = match &field.node.value {
        Value::List(items) => items.as_slice(),
        Value::Null => &[],
        _ => {
            field.wrong("a list", "", m);
            return None;
        }
    };
    let key = field.key;
    let read = items.iter().map(|node| text_of(Field { key, node }, m));
    read.collect::<Vec<_>>().into_iter().collect()
}

#[derive(Clone, Copy, PartialEq)]
enum OutlierWord {
    Keep,
    Remove,
}

impl Word for OutlierWord {
    const WORDS: &'static [(&'static str, Self)] =
        &[("keep", OutlierWord::Keep), ("remove", OutlierWord::Remove)];
}

impl Word for Direction {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("increase", Direction::Increase),
        ("decrease", Direction::Decrease),
        ("either", Direction::Either),
    ];
}

impl Word for NanStrategy {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("remove", NanStrategy::Remove),
        ("replace", NanStrategy::Replace),
    ];
}

impl Word for Measure {
    const WORDS: &'static [(&'static str, Self)] =
        &[("meanRatio", Measure::MeanRatio), ("cles", Measure::Cles)];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings() -> Bindings {
        let of = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
        [("scope", "$version"), ("location", "eu")].map(of).into()
    }

    #[test]
    fn templates_are_filled_in_as_kayenta_does() {
        let filled = |text: &str| expand(text, &bindings());
        assert_eq!(
            filled("v='${scope}',r='${location}'").unwrap(),
            "v='$version',r='eu'"
        );
        assert_eq!(filled("v='$\\{scope}'").unwrap(), "v='$version'");
        assert_eq!(filled("n='${namespace:-default}'").unwrap(), "n='default'");
        assert_eq!(filled("a=~'x$'").unwrap(), "a=~'x$$'");
        assert_eq!(filled("a='$${scope}'").unwrap(), "a='$${scope}'");
        assert!(filled("${namespace}").unwrap_err().contains("params"));
        assert!(filled("${scope").is_err());
    }
}
