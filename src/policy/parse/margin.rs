//! The two margins of a comparison.

use crate::policy::parse::DAY_MS;
use crate::policy::parse::check::seconds;
use crate::policy::reader::{Field, Fields, Mistakes};
use crate::policy::{Margin, value};

/// What an absolute part is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A share of all requests.
    Share,
    /// A duration.
    Seconds,
    /// The query's own.
    Number,
}

/// What is tolerated and what a pass certifies, by the fields `worseBy` and `passWithin`; each goes
/// without the other.
pub(super) fn margins_of(
    unit: Unit,
    defaults: (Margin, Margin),
    (worse_by, pass_within): (Option<Field<'_>>, Option<Field<'_>>),
    m: &mut Mistakes,
) -> Option<(Margin, Margin)> {
    let tolerated = worse_by.map(|field| margin(unit, field, "`worseBy`", m));
    let certified = pass_within.map(|field| margin(unit, field, "`passWithin`", m));
    let (tolerated, certified) = match (tolerated, certified) {
        (None, None) => return Some(defaults),
        (Some(tolerated), None) => (tolerated?, tolerated?),
        (None, Some(certified)) => (at_most(defaults.0, certified?), certified?),
        (Some(tolerated), Some(certified)) => (tolerated?, certified?),
    };
    margins_fit(tolerated, certified, (worse_by, pass_within), m)?;
    Some((tolerated, certified))
}

/// `margin`, but no part of it greater than that of `most`.
fn at_most(margin: Margin, most: Margin) -> Margin {
    let part = |part: Option<f64>, most: Option<f64>| part.map(|p| p.min(most.unwrap_or(0.0)));
    Margin {
        absolute: part(margin.absolute, most.absolute),
        relative: part(margin.relative, most.relative),
    }
}

/// Reports margins with which nothing could pass, or one version could both pass and fail.
fn margins_fit(
    tolerated: Margin,
    certified: Margin,
    fields: (Option<Field<'_>>, Option<Field<'_>>),
    m: &mut Mistakes,
) -> Option<()> {
    let (worse_by, pass_within) = fields;
    let place = pass_within.or(worse_by)?.key;
    if certified.is_nothing() {
        let message = "a margin of nothing can't be kept: no version could be shown to pass";
        let help = match pass_within {
            Some(_) => "say what a pass certifies, for example `passWithin: { relative: 50% }`",
            None => {
                "say what is tolerated, for example `worseBy: { relative: 10% }`; or keep it and \
                 say beside it what a pass certifies, for example `passWithin: { relative: 50% }`"
            }
        };
        let label = "expected `absolute` or `relative` above 0";
        m.add(&place.span, message, label, help);
        return None;
    }
    let smaller = [
        ("absolute", certified.absolute, tolerated.absolute),
        ("relative", certified.relative, tolerated.relative),
    ]
    .into_iter()
    .find(|(_, certified, tolerated)| certified.unwrap_or(0.0) < tolerated.unwrap_or(0.0));
    let Some((part, ..)) = smaller else {
        return Some(());
    };
    m.add(
        &place.span,
        "`passWithin` is smaller than `worseBy`: one version could be shown to pass and to fail",
        format!("its `{part}` is smaller than that of `worseBy`"),
        format!("raise `{part}` here, or lower it in `worseBy`"),
    );
    None
}

/// One margin. No part at all is a mistake; parts of zero are for the caller to judge.
fn margin(unit: Unit, field: Field<'_>, what: &str, m: &mut Mistakes) -> Option<Margin> {
    let mut fields = Fields::of(field.node, &field.key.span, what, m)?;
    let is_empty = fields.left().next().is_none();
    let absolute = fields.take_or("absolute", None, m, |field, m| match unit {
        Unit::Share => {
            let expected = "a share of all requests, such as 0.1%";
            field
                .share(expected, m, |s| (0.0..=1.0).contains(&s))
                .map(Some)
        }
        Unit::Seconds => field.duration(0, DAY_MS, m).map(|ms| Some(seconds(ms))),
        Unit::Number => {
            let expected = "a number, a percentage (1% is 0.01) or a duration (300ms is 0.3)";
            let number = |text: &str| {
                let number = value::share(text).or_else(|| value::duration_ms(text).map(seconds));
                number.filter(|number| (0.0..=1e15).contains(number))
            };
            field.scalar(expected, "", m, number).map(Some)
        }
    });
    let relative = fields.take_or("relative", None, m, |field, m| {
        let expected = "a share of the baseline from 0 to 1000 %, such as 25%";
        field
            .share(expected, m, |s| (0.0..=10.0).contains(&s))
            .map(Some)
    });
    fields.finish(&[], m);
    if is_empty {
        let message = format!("{what} says nothing");
        let label = "expected `absolute`, `relative` or both";
        m.add(
            &field.key.span,
            message,
            label,
            "for no margin at all write `{ relative: 0% }`",
        );
        return None;
    }
    Some(Margin {
        absolute: absolute?,
        relative: relative?,
    })
}
