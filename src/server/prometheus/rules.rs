//! `/rules` and `/alerts`: what is evaluated regularly, and what of it fires.
//!
//! slogate evaluates no rules of this kind yet, so the lists are empty; the paths are there
//! because Grafana's alerting pages ask for them. Whatever comes to have rules gives them as
//! [`RuleGroup`]s ([`Prometheus::with_rules`](super::Prometheus::with_rules)) and is filtered,
//! paged and written here.
//!
//! Filters are read in both spellings that clients send together, Prometheus's (`file[]`) and
//! Mimir's (`file`). A group of which the filters leave no rule is left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use ring::digest::{SHA256, digest};
use slogate_series::{Labels, Matcher};

use super::answer::{Coding, Notes, answer, success};
use super::error::Failure;
use super::json;
use super::params::{Form, quoted};
use crate::server::api::App;

/// Where the rules come from.
pub type RuleSource = Arc<dyn Fn() -> Vec<RuleGroup> + Send + Sync>;

/// Rules that are evaluated one after the other at the same times.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleGroup {
    /// Its name, unique within its file.
    pub name: String,
    /// Where it is written down.
    pub file: String,
    /// From one evaluation to the next, in seconds.
    pub interval_s: f64,
    /// The most series or alerts a rule may make; 0: no limit.
    pub limit: u64,
    /// The rules, in the order of evaluation.
    pub rules: Vec<Rule>,
    /// The newest evaluation.
    pub last: Evaluated,
}

/// An evaluation that has taken place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluated {
    /// When, in milliseconds since the epoch; 0: never.
    pub at_ms: i64,
    /// How long it took, in seconds.
    pub took_s: f64,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The alert's name, or the name of the recorded series.
    pub name: String,
    /// The PromQL expression.
    pub query: String,
    /// Labels added to what it makes.
    pub labels: Labels,
    /// Whether evaluation works.
    pub health: Health,
    /// The newest evaluation.
    pub last: Evaluated,
    /// What only alerting rules have; `None` for a recording rule.
    pub alerting: Option<Alerting>,
}

/// Whether a rule's evaluation works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not evaluated yet.
    Unknown,
    /// It does.
    Ok,
    /// It failed the last time, with this reason.
    Failing(String),
}

/// What an alerting rule has besides what every rule has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alerting {
    /// How long the expression must hold before the alert fires, in seconds.
    pub for_s: f64,
    /// How long the alert goes on firing after that, in seconds.
    pub keep_firing_for_s: f64,
    /// Texts for people.
    pub annotations: Labels,
    /// The alerts that are pending or firing.
    pub alerts: Vec<Alert>,
}

/// An alert that is pending or firing.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// What it is about.
    pub labels: Labels,
    /// Texts for people.
    pub annotations: Labels,
    /// Whether it fires; else it is pending.
    pub is_firing: bool,
    /// Since when the expression holds, in milliseconds since the epoch.
    pub active_at_ms: i64,
    /// Since when it fires only because it is kept firing, in milliseconds since the epoch.
    pub keep_firing_since_ms: Option<i64>,
    /// The expression's value.
    pub value: f64,
}

impl Rule {
    /// `inactive`, `pending` or `firing`, after the worst of its alerts.
    fn state(&self) -> &'static str {
        let alerts = self.alerting.iter().flat_map(|alerting| &alerting.alerts);
        match alerts.map(|alert| alert.is_firing).max() {
            Some(true) => "firing",
            Some(false) => "pending",
            None => "inactive",
        }
    }
}

/// `/rules`.
pub(super) async fn rules(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let coding = Coding::of(request.headers());
    let filter = Filter::read(&Form::read(request, &app).await?)?;
    let groups = (app.prometheus.rules)();
    let (groups, next) = filter.page(groups)?;
    answer(coding, move || {
        Ok(success(&Notes::default(), |out| {
            json::raw(out, "{\"groups\":");
            json::list(out, &groups, |out, group| {
                write_group(out, group, filter.without_alerts);
            });
            if let Some(token) = next {
                json::raw(out, ",\"groupNextToken\":");
                json::text(out, &token);
            }
            json::raw(out, "}");
        }))
    })
    .await
}

/// `/alerts`.
pub(super) async fn alerts(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let coding = Coding::of(request.headers());
    let groups = (app.prometheus.rules)();
    answer(coding, move || {
        let rules = groups.iter().flat_map(|group| &group.rules);
        let alerts = rules
            .filter_map(|rule| rule.alerting.as_ref())
            .flat_map(|alerting| &alerting.alerts);
        Ok(success(&Notes::default(), |out| {
            json::raw(out, "{\"alerts\":");
            json::list(out, alerts, write_alert);
            json::raw(out, "}");
        }))
    })
    .await
}

/// Which rules are asked for.
#[derive(Debug, Default)]
struct Filter {
    names: BTreeSet<String>,
    groups: BTreeSet<String>,
    files: BTreeSet<String>,
    selectors: Vec<Vec<Matcher>>,
    /// `Some(true)`: alerting rules only; `Some(false)`: recording rules only.
    alerting: Option<bool>,
    without_alerts: bool,
    /// The most groups, and the token of the group to begin with.
    page: Option<(usize, String)>,
}

impl Filter {
    fn read(form: &Form) -> Result<Self, Failure> {
        let set = |name: &str| -> BTreeSet<String> {
            let listed = format!("{name}[]");
            let values = form.all(&listed).chain(form.all(name));
            values
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let alerting = match form.text("type").to_ascii_lowercase().as_str() {
            "" => None,
            "alert" => Some(true),
            "record" => Some(false),
            other => {
                let message = format!("not supported value {}", quoted(other));
                return Err(Failure::parameter("type", message));
            }
        };
        Ok(Filter {
            names: set("rule_name"),
            groups: set("rule_group"),
            files: set("file"),
            selectors: form.selectors()?,
            alerting,
            without_alerts: without_alerts(form.text("exclude_alerts"))?,
            page: page(form.text("group_limit"), form.text("group_next_token"))?,
        })
    }

    fn wants(&self, rule: &Rule) -> bool {
        let is_named = self.names.is_empty() || self.names.contains(&rule.name);
        let is_kind = self
            .alerting
            .is_none_or(|wanted| wanted == rule.alerting.is_some());
        let passes = |matchers: &Vec<Matcher>| {
            let value = |matcher: &Matcher| rule.labels.get(matcher.name()).unwrap_or("");
            matchers.iter().all(|m| m.matches(value(m)))
        };
        is_named && is_kind && (self.selectors.is_empty() || self.selectors.iter().any(passes))
    }

    /// The groups to show, with the token of the one after them.
    fn page(&self, groups: Vec<RuleGroup>) -> Result<(Vec<RuleGroup>, Option<String>), Failure> {
        let mut groups = groups.into_iter().peekable();
        let (limit, from) = match &self.page {
            Some((limit, token)) => (*limit, Some(token).filter(|token| !token.is_empty())),
            None => (usize::MAX, None),
        };
        if let Some(wanted) = from {
            while groups.peek().is_some_and(|group| token(group) != *wanted) {
                groups.next();
            }
            if groups.peek().is_none() {
                let message =
                    format!("invalid group_next_token '{wanted}'. were rule groups changed?");
                return Err(Failure::parameter("group_next_token", message));
            }
        }
        let mut shown = Vec::new();
        for mut group in groups {
            let is_wanted = (self.groups.is_empty() || self.groups.contains(&group.name))
                && (self.files.is_empty() || self.files.contains(&group.file));
            group.rules.retain(|rule| self.wants(rule));
            if !is_wanted || group.rules.is_empty() {
                continue;
            }
            if shown.len() == limit {
                return Ok((shown, Some(token(&group))));
            }
            shown.push(group);
        }
        Ok((shown, None))
    }
}

fn without_alerts(text: &str) -> Result<bool, Failure> {
    match text.to_ascii_lowercase().as_str() {
        "" | "0" | "f" | "false" => Ok(false),
        "1" | "t" | "true" => Ok(true),
        other => {
            let message = format!(
                "error converting exclude_alerts: strconv.ParseBool: parsing {}: invalid syntax",
                quoted(other)
            );
            Err(Failure::parameter("exclude_alerts", message))
        }
    }
}

fn page(limit: &str, token: &str) -> Result<Option<(usize, String)>, Failure> {
    let fail = |message: String| Err(Failure::parameter("group_limit", message));
    match (limit, token) {
        ("", "") => Ok(None),
        ("", _) => {
            let message = "group_limit needs to be present in order to paginate over the groups";
            Err(Failure::parameter("group_next_token", message))
        }
        (limit, token) => match limit.parse::<i32>() {
            Ok(limit) if limit > 0 => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                Ok(Some((limit, token.to_owned())))
            }
            Ok(_) => fail("group_limit needs to be greater than 0".to_owned()),
            Err(_) => fail(format!(
                "group_limit needs to be a valid number: strconv.ParseInt: parsing {}: invalid \
                 syntax",
                quoted(limit)
            )),
        },
    }
}

/// What names a group between two requests: the SHA-256 of file and name in hexadecimal.
fn token(group: &RuleGroup) -> String {
    let text = format!("{};{}", group.file, group.name);
    let digest = digest(&SHA256, text.as_bytes());
    let bytes = digest.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn write_group(out: &mut Vec<u8>, group: &RuleGroup, without_alerts: bool) {
    json::raw(out, "{\"name\":");
    json::text(out, &group.name);
    json::raw(out, ",\"file\":");
    json::text(out, &group.file);
    json::raw(out, ",\"rules\":");
    json::list(out, &group.rules, |out, rule| {
        write_rule(out, rule, without_alerts);
    });
    json::raw(out, ",\"interval\":");
    json::number(out, group.interval_s);
    json::raw(out, &format!(",\"limit\":{}", group.limit));
    write_evaluated(out, group.last);
    json::raw(out, "}");
}

fn write_rule(out: &mut Vec<u8>, rule: &Rule, without_alerts: bool) {
    json::raw(out, "{");
    if rule.alerting.is_some() {
        json::raw(out, "\"state\":");
        json::text(out, rule.state());
        json::raw(out, ",");
    }
    json::raw(out, "\"name\":");
    json::text(out, &rule.name);
    json::raw(out, ",\"query\":");
    json::text(out, &rule.query);
    if let Some(alerting) = &rule.alerting {
        json::raw(out, ",\"duration\":");
        json::number(out, alerting.for_s);
        json::raw(out, ",\"keepFiringFor\":");
        json::number(out, alerting.keep_firing_for_s);
    }
    json::raw(out, ",\"labels\":");
    json::labels(out, &rule.labels);
    if let Some(alerting) = &rule.alerting {
        json::raw(out, ",\"annotations\":");
        json::labels(out, &alerting.annotations);
        json::raw(out, ",\"alerts\":");
        let shown: &[Alert] = if without_alerts {
            &[]
        } else {
            &alerting.alerts
        };
        json::list(out, shown, write_alert);
    }
    let (health, error) = match &rule.health {
        Health::Unknown => ("unknown", None),
        Health::Ok => ("ok", None),
        Health::Failing(error) => ("err", Some(error)),
    };
    json::raw(out, ",\"health\":");
    json::text(out, health);
    if let Some(error) = error {
        json::raw(out, ",\"lastError\":");
        json::text(out, error);
    }
    write_evaluated(out, rule.last);
    let kind = match rule.alerting {
        Some(_) => "alerting",
        None => "recording",
    };
    json::raw(out, ",\"type\":");
    json::text(out, kind);
    json::raw(out, "}");
}

fn write_alert(out: &mut Vec<u8>, alert: &Alert) {
    json::raw(out, "{\"labels\":");
    json::labels(out, &alert.labels);
    json::raw(out, ",\"annotations\":");
    json::labels(out, &alert.annotations);
    json::raw(out, ",\"state\":");
    json::text(out, if alert.is_firing { "firing" } else { "pending" });
    json::raw(out, ",\"activeAt\":");
    json::date(out, alert.active_at_ms);
    if let Some(since_ms) = alert.keep_firing_since_ms {
        json::raw(out, ",\"keepFiringSince\":");
        json::date(out, since_ms);
    }
    json::raw(out, ",\"value\":\"");
    json::exponential(out, alert.value);
    json::raw(out, "\"}");
}

fn write_evaluated(out: &mut Vec<u8>, evaluated: Evaluated) {
    json::raw(out, ",\"evaluationTime\":");
    json::number(out, evaluated.took_s);
    json::raw(out, ",\"lastEvaluation\":");
    json::date(out, evaluated.at_ms);
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Evaluated = Evaluated {
        at_ms: 1_795_190_400_250,
        took_s: 0.5,
    };

    fn rule(name: &str, alerts: &[bool]) -> Rule {
        let alert = |is_firing: &bool| Alert {
            labels: Labels::from_pairs([("alertname", name)]),
            annotations: Labels::empty(),
            is_firing: *is_firing,
            active_at_ms: 1_795_190_400_000,
            keep_firing_since_ms: None,
            value: 1.5,
        };
        Rule {
            name: name.to_owned(),
            query: "up < 1".to_owned(),
            labels: Labels::from_pairs([("severity", "page")]),
            health: Health::Ok,
            last: AT,
            alerting: Some(Alerting {
                for_s: 60.0,
                alerts: alerts.iter().map(alert).collect(),
                ..Alerting::default()
            }),
        }
    }

    fn recording() -> Rule {
        Rule {
            health: Health::Failing("no <data>".to_owned()),
            alerting: None,
            labels: Labels::empty(),
            ..rule("job:up", &[])
        }
    }

    fn group(name: &str, rules: Vec<Rule>) -> RuleGroup {
        RuleGroup {
            name: name.to_owned(),
            file: "slo.yaml".to_owned(),
            interval_s: 60.0,
            limit: 0,
            rules,
            last: Evaluated::default(),
        }
    }

    fn names(encoded: &str) -> Result<(Vec<String>, Option<String>), String> {
        let form = Form::of(encoded);
        let groups = vec![
            group("a", vec![rule("Down", &[true])]),
            group("b", vec![recording()]),
            group("c", vec![rule("Slow", &[]), recording()]),
        ];
        let filter = Filter::read(&form).map_err(|failure| failure.message)?;
        let (groups, next) = filter.page(groups).map_err(|failure| failure.message)?;
        let name = |group: &RuleGroup| format!("{}{}", group.name, group.rules.len());
        Ok((groups.iter().map(name).collect(), next))
    }

    #[test]
    fn groups_and_rules_have_every_key() {
        let mut out = Vec::new();
        let rules = vec![rule("Down", &[false, true]), recording()];
        write_group(&mut out, &group("a", rules), false);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"name\":\"a\",\"file\":\"slo.yaml\",\"rules\":[\
             {\"state\":\"firing\",\"name\":\"Down\",\"query\":\"up \\u003c 1\",\"duration\":60,\
             \"keepFiringFor\":0,\"labels\":{\"severity\":\"page\"},\"annotations\":{},\"alerts\":[\
             {\"labels\":{\"alertname\":\"Down\"},\"annotations\":{},\"state\":\"pending\",\
             \"activeAt\":\"2026-11-20T16:00:00Z\",\"value\":\"1.5e+00\"},\
             {\"labels\":{\"alertname\":\"Down\"},\"annotations\":{},\"state\":\"firing\",\
             \"activeAt\":\"2026-11-20T16:00:00Z\",\"value\":\"1.5e+00\"}],\
             \"health\":\"ok\",\"evaluationTime\":0.5,\
             \"lastEvaluation\":\"2026-11-20T16:00:00.25Z\",\"type\":\"alerting\"},\
             {\"name\":\"job:up\",\"query\":\"up \\u003c 1\",\"labels\":{},\"health\":\"err\",\
             \"lastError\":\"no \\u003cdata\\u003e\",\"evaluationTime\":0.5,\
             \"lastEvaluation\":\"2026-11-20T16:00:00.25Z\",\"type\":\"recording\"}],\
             \"interval\":60,\"limit\":0,\"evaluationTime\":0,\
             \"lastEvaluation\":\"0001-01-01T00:00:00Z\"}"
        );
        assert_eq!(rule("a", &[]).state(), "inactive");
        assert_eq!(rule("a", &[false]).state(), "pending");
    }

    #[test]
    fn filters_leave_out_rules_and_then_groups() {
        let all = |encoded| names(encoded).unwrap().0;
        assert_eq!(all(""), ["a1", "b1", "c2"]);
        assert_eq!(all("type=alert"), ["a1", "c1"]);
        assert_eq!(all("type=record"), ["b1", "c1"]);
        assert_eq!(all("rule_name[]=Slow"), ["c1"]);
        assert_eq!(all("rule_group=a&rule_group[]=b"), ["a1", "b1"]);
        assert_eq!(all("file=other.yaml"), [""; 0]);
        assert_eq!(all("match[]={severity=\"page\"}"), ["a1", "c1"]);
        assert!(names("type=x").unwrap_err().contains("not supported value"));
        assert!(names("exclude_alerts=maybe").is_err());
    }

    #[test]
    fn pages_follow_one_another() {
        let (first, next) = names("group_limit=2").unwrap();
        assert_eq!(first, ["a1", "b1"]);
        let next = next.unwrap();
        let rest = names(&format!("group_limit=2&group_next_token={next}"));
        assert_eq!(rest, Ok((vec!["c2".to_owned()], None)));
        for wrong in [
            "group_limit=0",
            "group_limit=x",
            "group_next_token=x",
            "group_limit=1&group_next_token=x",
        ] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
    }
}
