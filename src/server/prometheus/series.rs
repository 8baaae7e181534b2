//! What series there are: `/labels`, `/label/…/values`, `/series`, `/metadata`,
//! `/query_exemplars`.
//!
//! Answered from the store's index, so `start` and `end` are honoured by chunk: a series counts
//! if one of its chunks touches the range. Several `match[]` join what each selects. Lists are
//! sorted; a limit keeps the first and says so in a warning. A few of these look-ups run at
//! once, the others wait: over millions of series they cost time too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use slogate_promql::Expr;
use slogate_promql::ast::ExprKind;
use slogate_series::{Labels, Matcher};
use slogate_tsdb::Store;

use super::answer::{Coding, Notes, answer, success};
use super::error::Failure;
use super::json;
use super::params::{Form, quoted};
use crate::server::api::App;

/// Look-ups that run at once.
pub(super) const LOOKUPS_MAX: usize = 4;

/// What is looked up: of which series, when, and how many results.
struct Selection {
    /// Series that any of these selects; all where there are none.
    selectors: Vec<Vec<Matcher>>,
    start_ms: i64,
    end_ms: i64,
    limit: Option<usize>,
}

impl Selection {
    fn read(form: &Form) -> Result<Self, Failure> {
        let all = Selection::read_range(form)?;
        let selectors = form.selectors()?;
        Ok(Selection { selectors, ..all })
    }

    /// Of all series.
    fn read_range(form: &Form) -> Result<Self, Failure> {
        let limit = form.limit()?;
        let (start_ms, end_ms) = form.range_ms()?;
        Ok(Selection {
            selectors: Vec::new(),
            start_ms,
            end_ms,
            limit,
        })
    }

    /// Joins what `find` gives for each selector, sorted and each thing once.
    fn find<T: Ord>(&self, find: impl Fn(&[Matcher], i64, i64) -> Vec<T>) -> Vec<T> {
        match self.selectors.as_slice() {
            [] => find(&[], self.start_ms, self.end_ms),
            [one] => find(one, self.start_ms, self.end_ms),
            several => {
                let found = several
                    .iter()
                    .flat_map(|matchers| find(matchers, self.start_ms, self.end_ms));
                found.collect::<BTreeSet<_>>().into_iter().collect()
            }
        }
    }

    fn cut<T>(&self, found: &mut Vec<T>) -> Notes {
        let mut notes = Notes::default();
        if let Some(limit) = self.limit.filter(|limit| found.len() > *limit) {
            found.truncate(limit);
            notes.truncated();
        }
        notes
    }
}

/// Answers with what `find` makes of the store, when its turn comes.
pub(super) async fn look_up<F>(app: &App, coding: Coding, find: F) -> Result<Response, Failure>
where
    F: FnOnce(&Store) -> Vec<u8> + Send + 'static,
{
    let turns = app.prometheus.lookups.clone();
    let turn = turns.acquire_owned().await;
    let turn = turn.map_err(|error| Failure::internal(&error))?;
    let store = app.prometheus.store.clone();
    answer(coding, move || {
        let found = find(&store);
        drop(turn);
        Ok(found)
    })
    .await
}

/// `/labels`.
pub(super) async fn label_names(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let coding = Coding::of(request.headers());
    let selection = Selection::read(&Form::read(request, &app).await?)?;
    look_up(&app, coding, move |store| {
        let mut names = selection.find(|matchers, from, to| store.label_names(matchers, from, to));
        let notes = selection.cut(&mut names);
        success(&notes, |out| json::texts(out, &names))
    })
    .await
}

/// `/label/{name}/values`.
pub(super) async fn label_values(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let coding = Coding::of(request.headers());
    let Ok(Path(name)) = name else {
        return Err(Failure::bad_data("invalid label name: not UTF-8"));
    };
    let name = unescaped(&name).unwrap_or(name);
    if name.is_empty() {
        let message = format!("invalid label name: {}", quoted(&name));
        return Err(Failure::bad_data(message));
    }
    let selection = Selection::read(&Form::read(request, &app).await?)?;
    look_up(&app, coding, move |store| {
        let mut values =
            selection.find(|matchers, from, to| store.label_values(&name, matchers, from, to));
        let notes = selection.cut(&mut values);
        success(&notes, |out| json::texts(out, &values))
    })
    .await
}

/// `/series`.
pub(super) async fn series(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let coding = Coding::of(request.headers());
    let form = Form::read(request, &app).await?;
    if form.all("match[]").next().is_none() {
        return Err(Failure::bad_data("no match[] parameter provided"));
    }
    let mut selection = Selection::read_range(&form)?;
    let selectors = form.selectors();
    selection.selectors = selectors.map_err(|e| Failure::parameter("match[]", e.message))?;
    look_up(&app, coding, move |store| {
        let mut found: Vec<Labels> =
            selection.find(|matchers, from, to| store.series_labels(matchers, from, to));
        let notes = selection.cut(&mut found);
        success(&notes, |out| json::list(out, &found, json::labels))
    })
    .await
}

/// `/metadata`: kind, unit and description by metric. Of each metric there is one, the newest.
pub(super) async fn metadata(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let coding = Coding::of(request.headers());
    let form = Form::read(request, &app).await?;
    let number = |name: &str| match form.text(name) {
        "" => Ok(0),
        text => text
            .parse::<i64>()
            .map_err(|_| Failure::bad_data(format!("{name} must be a number"))),
    };
    // Below 1 is no limit.
    let limit = usize::try_from(number("limit")?).unwrap_or(0);
    number("limit_per_metric")?;
    let metric = form.text("metric").to_owned();
    look_up(&app, coding, move |store| {
        let metric = Some(metric.as_str()).filter(|metric| !metric.is_empty());
        let found = store.metadata(metric, limit);
        success(&Notes::default(), |out| {
            json::raw(out, "{");
            for (n, (metric, metadata)) in found.iter().enumerate() {
                json::raw(out, if n == 0 { "" } else { "," });
                json::text(out, metric);
                json::raw(out, ":[{\"type\":");
                json::text(out, metadata.kind.as_str());
                json::raw(out, ",\"unit\":");
                json::text(out, &metadata.unit);
                json::raw(out, ",\"help\":");
                json::text(out, &metadata.help);
                json::raw(out, "}]");
            }
            json::raw(out, "}");
        })
    })
    .await
}

/// `/query_exemplars`: the exemplars of every series that a selector of the query selects.
pub(super) async fn exemplars(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let coding = Coding::of(request.headers());
    let form = Form::read(request, &app).await?;
    let (start_ms, end_ms) = form.range_ms()?;
    if end_ms < start_ms {
        let message = "end timestamp must not be before start timestamp";
        return Err(Failure::bad_data(message));
    }
    let expr = slogate_promql::parse(form.text("query"));
    let expr = expr.map_err(|error| Failure::bad_data(error.to_string()))?;
    let mut selectors = Vec::new();
    collect_selectors(&expr, &mut selectors);
    if selectors.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    look_up(&app, coding, move |store| {
        let found = selectors
            .iter()
            .flat_map(|matchers| store.exemplars(matchers, start_ms, end_ms));
        // A series that several selectors select is listed once.
        let found: BTreeMap<_, _> = found.collect();
        success(&Notes::default(), |out| {
            json::list(out, &found, |out, (labels, exemplars)| {
                json::raw(out, "{\"seriesLabels\":");
                json::labels(out, labels);
                json::raw(out, ",\"exemplars\":");
                json::list(out, exemplars, json::exemplar);
                json::raw(out, "}");
            });
        })
    })
    .await
}

/// The matchers of every selector in `expr`.
fn collect_selectors(expr: &Expr, selectors: &mut Vec<Vec<Matcher>>) {
    match &expr.kind {
        ExprKind::Vector(selector) => selectors.push(selector.all_matchers()),
        ExprKind::Matrix(matrix) => selectors.push(matrix.selector.all_matchers()),
        _ => {
            for child in expr.children() {
                collect_selectors(child, selectors);
            }
        }
    }
}

/// A label name that is no plain word, out of a form that fits into a path: after `U__` a
/// doubled underscore stands for one and `_2e_` for the character of that code point. `None`
/// where it is not such a form; then the name means itself.
fn unescaped(name: &str) -> Option<String> {
    const HEX_DIGITS_MAX: usize = 6;
    let mut rest = name.strip_prefix("U__")?;
    let mut out = String::new();
    while let Some((plain, more)) = rest.split_once('_') {
        out.push_str(plain);
        let (code, more) = more.split_once('_')?;
        if code.is_empty() {
            out.push('_');
        } else if code.len() < HEX_DIGITS_MAX && code.bytes().all(|b| b.is_ascii_hexdigit()) {
            out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        } else {
            return None;
        }
        rest = more;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_label_names_mean_what_they_stand_for() {
        let cases = [
            ("U__http_2e_status", Some("http.status")),
            ("U__a__b", Some("a_b")),
            ("U___3a_x", Some(":x")),
            ("U___fc_", Some("ü")),
            ("U__1F600_", None),
            ("U___1F600_", Some("😀")),
            ("U__", Some("")),
            ("http.status", None),
            ("U__a_zz_", None),
            ("U__a_2e", None),
            ("U__a_", None),
            ("U__a_d800_", None),
            ("U__a_1234567_", None),
        ];
        for (name, expected) in cases {
            assert_eq!(unescaped(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn every_selector_of_a_query_counts() {
        let expr = slogate_promql::parse("sum(rate(a[5m])) / on() (b{c=\"d\"} or vector(1))");
        let mut found = Vec::new();
        collect_selectors(&expr.unwrap(), &mut found);
        let names: Vec<_> = found.iter().map(Vec::len).collect();
        assert_eq!(names, [1, 2]);
        found.clear();
        collect_selectors(&slogate_promql::parse("1 + time()").unwrap(), &mut found);
        assert!(found.is_empty());
    }
}
