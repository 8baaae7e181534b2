//! The join that most queries are: no two series of a side share a key where only one may, so
//! that who meets whom is the same at every step and nothing can be ambiguous.

use slogate_series::Projection;

use crate::ast::{Binary, Cardinality, Span};
use crate::eval::binary::{Join, Meeting, Paired, result_labels};
use crate::eval::groups::Groups;
use crate::eval::{Column, EvalError, Evaluator};

impl Evaluator<'_> {
    /// The result series by series; `None` where the sides have to be looked at step by step.
    pub(super) fn plain_join(
        &mut self,
        binary: &Binary,
        join: &Join<'_>,
        swapped: bool,
        span: Span,
    ) -> Result<Option<Vec<Column>>, EvalError> {
        let Some(partners) = partners(join) else {
            return Ok(None);
        };
        let mut names = Groups::new(Projection::All);
        let (mut named, mut out) = (0, Vec::new());
        for (at, (many, key)) in join.many.iter().zip(&join.many_keys).enumerate() {
            self.meter.check()?;
            let Some(one_at) = partners.get(*key).copied().flatten() else {
                continue;
            };
            let Some(one) = join.one.get(one_at) else {
                continue;
            };
            let labels = result_labels(join.drops_name, join.matching, &many.labels, &one.labels);
            if names.slot(&labels) < named {
                // Two pairs have one name, also if a comparison drops them; whether that is wrong
                // depends on the step.
                return Ok(None);
            }
            named += 1;
            let pairs = many.values.iter().zip(&one.values);
            let values = pairs.map(|(many_value, one_value)| {
                let found = Meeting {
                    key: *key,
                    many: Some(at),
                    one: Some(one_at),
                    many_value: many_value.as_ref()?,
                    one_value: one_value.as_ref()?,
                };
                match self.meeting(binary, &found, swapped, span) {
                    Paired::Kept(value) => Some(value),
                    Paired::FilteredOut | Paired::Meaningless => None,
                }
            });
            let values: Vec<_> = values.collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            out.push(Column {
                labels,
                drop_name: false,
                values,
            });
        }
        Ok(Some(out))
    }
}

/// For each key the one series of the one side.
fn partners(join: &Join<'_>) -> Option<Vec<Option<usize>>> {
    if join.fills.many.is_some() || join.fills.one.is_some() {
        return None;
    }
    let mut partners = vec![None; join.present.len()];
    for (at, key) in join.one_keys.iter().enumerate() {
        if partners.get_mut(*key)?.replace(at).is_some() {
            return None;
        }
    }
    if join.matching.card == Cardinality::OneToOne {
        let mut taken = vec![false; join.present.len()];
        for key in &join.many_keys {
            if std::mem::replace(taken.get_mut(*key)?, true) {
                return None;
            }
        }
    }
    Some(partners)
}
