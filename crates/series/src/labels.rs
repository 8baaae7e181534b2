//! Label sets.

use std::fmt;
use std::sync::Arc;

/// The label that carries a series' metric name.
pub const METRIC_NAME: &str = "__name__";

/// One label pair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Label name, for example `service_name`.
    pub name: Arc<str>,
    /// Label value; never empty inside [`Labels`], since an empty value means absence.
    pub value: Arc<str>,
}

/// A label set: sorted by name, names unique, no empty values.
///
/// An empty value and an absent label are the same thing in PromQL, so empty values
/// are dropped on construction. Cloning copies one pointer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[Label]>);

impl Labels {
    /// The empty label set.
    pub fn empty() -> Self {
        Labels(Arc::from([]))
    }

    /// Builds a label set from pairs in any order. Of two pairs with one name the later wins.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<Arc<str>>,
        V: Into<Arc<str>>,
    {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name, value);
        }
        builder.build()
    }

    /// A label set from pairs that are sorted by name, names unique, no empty values: what a
    /// store keeps and gives back without sorting again.
    pub fn from_sorted(pairs: impl Into<Arc<[Label]>>) -> Self {
        let pairs = pairs.into();
        debug_assert!(pairs.windows(2).all(|pair| pair[0].name < pair[1].name));
        debug_assert!(pairs.iter().all(|label| !label.value.is_empty()));
        Labels(pairs)
    }

    /// The value of `name`, or `None` where the label is absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .binary_search_by(|label| label.name.as_ref().cmp(name))
            .ok()
            .map(|at| self.0[at].value.as_ref())
    }

    /// The metric name, or `None` for a set without one.
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// The pairs, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Label> {
        self.0.iter()
    }

    /// The pairs as a slice, sorted by name.
    pub fn as_slice(&self) -> &[Label] {
        &self.0
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A builder that starts from this set.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder {
            pairs: self.0.to_vec(),
        }
    }

    /// This set without the named labels.
    pub fn without(&self, names: &[&str]) -> Self {
        if !self
            .0
            .iter()
            .any(|label| names.contains(&label.name.as_ref()))
        {
            return self.clone();
        }
        Labels(
            self.0
                .iter()
                .filter(|l| !names.contains(&l.name.as_ref()))
                .cloned()
                .collect(),
        )
    }

    /// Only the named labels of this set.
    pub fn keep(&self, names: &[&str]) -> Self {
        Labels(
            self.0
                .iter()
                .filter(|l| names.contains(&l.name.as_ref()))
                .cloned()
                .collect(),
        )
    }
}

/// The part of a label set that somebody looks at.
///
/// Whoever sums over instances need not be told each instance's name; a store can save most
/// of the work of naming series by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Projection<'a> {
    /// All labels.
    #[default]
    All,
    /// Only those of these names.
    Only(&'a [&'a str]),
    /// All but those of these names.
    Without(&'a [&'a str]),
}

impl Projection<'_> {
    /// Whether a label of this name is part of it.
    pub fn keeps(&self, name: &str) -> bool {
        match self {
            Projection::All => true,
            Projection::Only(names) => names.contains(&name),
            Projection::Without(names) => !names.contains(&name),
        }
    }

    /// That part of `labels`.
    pub fn of(&self, labels: &Labels) -> Labels {
        match self {
            Projection::All => labels.clone(),
            Projection::Only(names) => labels.keep(names),
            Projection::Without(names) => labels.without(names),
        }
    }
}

impl Default for Labels {
    fn default() -> Self {
        Labels::empty()
    }
}

/// Prints as Prometheus prints a series: `name{a="b", c="d"}`, or `{}` for the empty set.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name().unwrap_or("");
        f.write_str(name)?;
        let mut rest = self
            .0
            .iter()
            .filter(|l| l.name.as_ref() != METRIC_NAME)
            .peekable();
        if rest.peek().is_none() && !name.is_empty() {
            return Ok(());
        }
        f.write_str("{")?;
        for (i, label) in rest.enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}=\"", label.name)?;
            for c in label.value.chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str("\\n")?,
                    c => write!(f, "{c}")?,
                }
            }
            f.write_str("\"")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Collects label pairs in any order and builds a sorted [`Labels`].
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<Label>,
}

impl LabelsBuilder {
    /// Sets `name` to `value`, replacing an earlier value. An empty value removes the label.
    pub fn set(&mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> &mut Self {
        let (name, value) = (name.into(), value.into());
        match self.pairs.iter_mut().find(|label| label.name == name) {
            Some(label) => label.value = value,
            None => self.pairs.push(Label { name, value }),
        }
        self
    }

    /// Removes `name` where it is set.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|label| label.name.as_ref() != name);
        self
    }

    /// The sorted label set.
    pub fn build(mut self) -> Labels {
        self.pairs.retain(|label| !label.value.is_empty());
        self.pairs.sort_unstable();
        Labels(self.pairs.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_deduplicates_and_drops_empty_values() {
        let labels = Labels::from_pairs([("b", "1"), ("a", "2"), ("b", "3"), ("c", "")]);
        let pairs: Vec<_> = labels
            .iter()
            .map(|l| (l.name.as_ref(), l.value.as_ref()))
            .collect();
        assert_eq!(pairs, [("a", "2"), ("b", "3")]);
        assert_eq!(labels.get("b"), Some("3"));
        assert_eq!(labels.get("c"), None);
    }

    #[test]
    fn prints_like_prometheus() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a\"b\\\n")]);
        assert_eq!(labels.to_string(), r#"up{job="a\"b\\\n"}"#);
        assert_eq!(Labels::from_pairs([("__name__", "up")]).to_string(), "up");
        assert_eq!(Labels::empty().to_string(), "{}");
    }

    #[test]
    fn a_projection_is_keeping_or_dropping() {
        let labels = Labels::from_pairs([("a", "1"), ("b", "2"), ("c", "3")]);
        for projection in [
            Projection::All,
            Projection::Only(&["a", "x"]),
            Projection::Without(&["a", "x"]),
        ] {
            let kept = labels.iter().filter(|label| projection.keeps(&label.name));
            let kept = Labels::from_sorted(kept.cloned().collect::<Vec<_>>());
            assert_eq!(projection.of(&labels), kept);
        }
    }

    #[test]
    fn keeps_and_drops_by_name() {
        let labels = Labels::from_pairs([("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(labels.without(&["b"]).to_string(), r#"{a="1", c="3"}"#);
        assert_eq!(labels.keep(&["b", "x"]).to_string(), r#"{b="2"}"#);
    }
}
