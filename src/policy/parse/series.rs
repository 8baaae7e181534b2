//! `compare` with a query of the author's own.

use crate::policy::parse::DAY_MS;
use crate::policy::parse::check::expression;
use crate::policy::parse::margin::{Unit, margins_of};
use crate::policy::reader::{Field, Fields, Mistakes};
use crate::policy::{
    BaselinePreference, ChangeDirection, Horizon, Margin, SeriesCheck, SeriesMethod, Template,
    Variable, defaults, promql,
};

const MINUTE_MS: i64 = 60_000;

/// The rest of `compare` beside its `query`.
pub(super) fn series(
    query: Field<'_>,
    mut fields: Fields<'_>,
    m: &mut Mistakes,
) -> Option<SeriesCheck> {
    let expr = expression(query, m).and_then(|expr| of_one_side(&query, expr, m));
    let direction = fields.take_or("direction", ChangeDirection::default(), m, |field, m| {
        field.word(m)
    });
    let method_field = fields.take("method");
    let method = match method_field {
        Some(field) => field.word(m),
        None => Some(SeriesMethod::default()),
    };
    let step_ms = step(&mut fields, defaults::SERIES_STEP_MS, m);
    let margins = (fields.take("worseBy"), fields.take("passWithin"));
    let times = (fields.take("after"), fields.take("every"));
    let against = fields.take_or("against", BaselinePreference::default(), m, |field, m| {
        field.word(m)
    });
    fields.finish(&[], m);
    let defaults = (defaults::SERIES_WORSE_BY, defaults::SERIES_PASS_WITHIN);
    let found = margins_of(Unit::Number, defaults, margins, m);
    let method = method?;
    let horizon = match (method, times) {
        (SeriesMethod::Sequential, (after, every)) => {
            for field in after.into_iter().chain(every) {
                let name = &field.key.name;
                let message = format!("`{name}` is for methods that are judged once");
                let help = "remove it: a sequential test may be looked at at any time";
                m.add(&field.key.span, message, "no use here", help);
            }
            Some(Horizon::default())
        }
        (_, times) => horizon(times, m),
    };
    let (worse_by, pass_within) = found?;
    if method == SeriesMethod::Kayenta {
        only_relative(margins, worse_by, m)?;
    }
    Some(SeriesCheck {
        expr: expr?,
        step_ms: step_ms?,
        direction: direction?,
        method,
        worse_by,
        pass_within,
        horizon: horizon?,
        against: against?,
    })
}

/// A query that is asked for each side: with a version, and without what differs over time.
fn of_one_side(query: &Field<'_>, expr: Template, m: &mut Mistakes) -> Option<Template> {
    let (message, help) = if !expr.uses(Variable::Version) {
        (
            "this query asks the same of both sides",
            "select the side's series by `$version`, for example `{service_version=\"$version\"}`",
        )
    } else if expr.uses(Variable::Baseline) {
        (
            "`$baseline` is the same on both sides",
            "write `$version`: the query is asked for the candidate and for the baseline",
        )
    } else if expr.uses(Variable::Window) {
        (
            "`$window` has no meaning at each point of a series",
            "write a range such as [1m]",
        )
    } else if !promql::is_vector(&expr) {
        (
            "a series can't be made of a scalar",
            "wrap it in vector(…), or ask for series",
        )
    } else {
        return Some(expr);
    };
    m.add(query.span(), message, "here", help);
    None
}

/// The time from one point to the next.
pub(super) fn step(fields: &mut Fields<'_>, default_ms: i64, m: &mut Mistakes) -> Option<i64> {
    fields.take_or("step", default_ms, m, |field, m| {
        field.duration(1000, DAY_MS, m)
    })
}

/// When a test is judged that is not to be looked at early, by the fields `after` and `every`.
pub(super) fn horizon(
    (after, every): (Option<Field<'_>>, Option<Field<'_>>),
    m: &mut Mistakes,
) -> Option<Horizon> {
    let time = |field: Option<Field<'_>>, m: &mut Mistakes| match field {
        Some(field) => field.duration(MINUTE_MS, 30 * DAY_MS, m).map(Some),
        None => Some(None),
    };
    let (after_ms, every_ms) = (time(after, m), time(every, m));
    Some(Horizon {
        after_ms: after_ms?,
        every_ms: every_ms?,
    })
}

/// Kayenta knows one margin, the share by which means differ.
fn only_relative(
    (worse_by, pass_within): (Option<Field<'_>>, Option<Field<'_>>),
    margin: Margin,
    m: &mut Mistakes,
) -> Option<()> {
    let help = "write `worseBy: { relative: … }`: it is the effect size that a change has to have";
    if let Some(field) = pass_within {
        let message = "`passWithin` has no meaning for Kayenta's judge";
        m.add(&field.key.span, message, "no use here", help);
        return None;
    }
    match (worse_by, margin.absolute) {
        (Some(field), Some(_)) => {
            let message = "Kayenta's judge knows no absolute margin";
            m.add(&field.key.span, message, "no use here", help);
            None
        }
        _ => Some(()),
    }
}
