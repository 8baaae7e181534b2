//! Label sets that count as one.

use std::hash::{BuildHasher, Hash, Hasher};

use hashbrown::HashTable;
use slogate_series::{Label, Labels, Projection};

/// Numbers for the label sets that are the same in the labels of a projection, in the order
/// of their first appearance. Looking one up builds no labels.
pub(crate) struct Groups<'n> {
    projection: Projection<'n>,
    slots: HashTable<usize>,
    labels: Vec<Labels>,
    hasher: foldhash::fast::FixedState,
}

impl<'n> Groups<'n> {
    pub(crate) fn new(projection: Projection<'n>) -> Self {
        Groups {
            projection,
            slots: HashTable::new(),
            labels: Vec::new(),
            // Within one query, keys come from the store, whose own tables are seeded.
            hasher: foldhash::fast::FixedState::default(),
        }
    }

    /// The number of the group that `labels` is in.
    pub(crate) fn slot(&mut self, labels: &Labels) -> usize {
        let Groups {
            projection,
            slots,
            labels: known,
            hasher,
        } = self;
        let hash = hash_of(hasher, kept(*projection, labels));
        let same = |at: &usize| {
            let of_group = known.get(*at).map(Labels::as_slice).unwrap_or_default();
            of_group.iter().eq(kept(*projection, labels))
        };
        if let Some(at) = slots.find(hash, same) {
            return *at;
        }
        let at = known.len();
        known.push(projection.of(labels));
        slots.insert_unique(hash, at, |at| {
            let of_group = known.get(*at).map(Labels::as_slice).unwrap_or_default();
            hash_of(hasher, of_group.iter())
        });
        at
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The labels that each group has in common.
    pub(crate) fn into_labels(self) -> Vec<Labels> {
        self.labels
    }
}

fn kept<'l>(
    projection: Projection<'l>,
    labels: &'l Labels,
) -> impl Iterator<Item = &'l Label> + 'l {
    labels
        .iter()
        .filter(move |label| projection.keeps(&label.name))
}

fn hash_of<'l>(
    hasher: &foldhash::fast::FixedState,
    labels: impl Iterator<Item = &'l Label>,
) -> u64 {
    let mut hasher = hasher.build_hasher();
    for label in labels {
        label.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_numbered_as_they_appear() {
        let labels = |a: &str, b: &str| Labels::from_pairs([("a", a), ("b", b)]);
        let mut groups = Groups::new(Projection::Only(&["a"]));
        let slots = [("1", "x"), ("2", "x"), ("1", "y"), ("", "y")]
            .map(|(a, b)| groups.slot(&labels(a, b)));
        assert_eq!(slots, [0, 1, 0, 2]);
        assert_eq!(groups.len(), 3);
        let texts: Vec<_> = groups
            .into_labels()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(texts, [r#"{a="1"}"#, r#"{a="2"}"#, "{}"]);
    }
}
