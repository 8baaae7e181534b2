//! Random queries over the data set: always well-typed, so that nearly all of them have a value.

use std::fmt;

use super::data::Dice;

/// What a part of a query gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Scalar,
    Vector,
    Range,
}

/// A query, as a tree whose parts can be taken out to make it smaller.
#[derive(Clone, Debug)]
pub(super) struct Node {
    kind: Kind,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Node(Node),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Node(node) => node.fmt(f)?,
            }
        }
        Ok(())
    }
}

impl Node {
    fn children(&self) -> impl Iterator<Item = &Node> {
        self.parts.iter().filter_map(|part| match part {
            Part::Node(node) => Some(node),
            Part::Text(_) => None,
        })
    }

    fn descendants(&self) -> Vec<&Node> {
        let mut found: Vec<&Node> = self.children().collect();
        let mut at = 0;
        while at < found.len() {
            let node = found[at];
            found.extend(node.children());
            at += 1;
        }
        found
    }

    /// Smaller queries: a part that stands for the whole, or a smaller part in its place.
    pub(super) fn smaller(&self) -> Vec<Node> {
        let mut found = self.smaller_of_kind(&[Kind::Vector, Kind::Scalar]);
        found.sort_by_key(|node| node.to_string().len());
        found
    }

    fn smaller_of_kind(&self, kinds: &[Kind]) -> Vec<Node> {
        let fits = |node: &&Node| kinds.contains(&node.kind);
        let mut found: Vec<Node> = self
            .descendants()
            .into_iter()
            .filter(fits)
            .cloned()
            .collect();
        for (at, part) in self.parts.iter().enumerate() {
            let Part::Node(child) = part else { continue };
            for smaller in child.smaller_of_kind(&[child.kind]) {
                let mut whole = self.clone();
                whole.parts[at] = Part::Node(smaller);
                found.push(whole);
            }
        }
        found
    }
}

/// Builds a node from text and nodes in a row.
macro_rules! node {
    ($kind:ident: $($part:expr),+ $(,)?) => {
        Node { kind: Kind::$kind, parts: vec![$(Part::from($part)),+] }
    };
}

impl From<Node> for Part {
    fn from(node: Node) -> Part {
        Part::Node(node)
    }
}

impl From<&str> for Part {
    fn from(text: &str) -> Part {
        Part::Text(text.to_owned())
    }
}

impl From<String> for Part {
    fn from(text: String) -> Part {
        Part::Text(text)
    }
}

const COUNTERS: &[&str] = &[
    "demo_cpu_usage_seconds_total",
    "demo_cpu_usage_seconds_total{mode!=\"idle\"}",
    "demo_items_shipped_total",
    "demo_requests_total",
    "demo_requests_total{version=\"1.1\"}",
    "demo_api_request_duration_seconds_count",
    "demo_api_request_duration_seconds_count{status=~\"4..|5..\"}",
    "demo_api_request_duration_seconds_bucket{path=\"/api/foo\", le=~\"0.1|1|.Inf\"}",
    "gaps_total",
    "on_grid_total",
];
const GAUGES: &[&str] = &[
    "demo_memory_usage_bytes",
    "demo_memory_usage_bytes{type=~\"free|used\"}",
    "demo_memory_usage_bytes{instance=\"demo-b:8080\"}",
    "demo_num_cpus",
    "demo_disk_usage_bytes",
    "demo_cyclic",
    "demo_cyclic{instance!=\"demo-a:8080\"}",
    "demo_intermittent_metric",
    "demo_build_info",
    "up",
    "odd_gauge",
    "odd_gauge{kind=~\"whole|both-signs|sometimes-nan\"}",
    "many",
    "one",
    "twofold",
    "same_a",
    "{__name__=~\"same_.\"}",
    "brief",
    "sparse",
    "nobody_sends_this",
];
const NATIVES: &[&str] = &[
    "native_seconds",
    "native_seconds{instance=\"demo-b:8080\"}",
    "native_odd",
    "native_odd{kind!=\"empty\"}",
    "native_gauge",
    "native_fractions",
    "native_custom",
    "mixed_kinds",
    "turning",
];
const LABELS: &[&str] = &[
    "instance", "job", "mode", "type", "kind", "service", "team", "zone", "copy", "version",
    "status", "path", "le", "__name__", "nothing",
];
const RANGES: &[&str] = &[
    "20s",
    "45s",
    "1m",
    "3m",
    "5m",
    "11m",
    "1h",
    "2m30s",
    "1m * 2 + 7s",
];
const STEPS: &[&str] = &["", "7s", "15s", "50s", "1m", "3m"];
const NUMBERS: &[&str] = &[
    "0", "1", "2", "-1", "0.5", "3.25", "10", "100", "1e3", "-0.75", "1e9", "Inf", "NaN", "7",
];
const QUANTILES: &[&str] = &["0", "0.1", "0.5", "0.9", "0.99", "1", "-1", "2", "0.25"];

/// Makes queries from dice.
pub(super) struct Generator {
    dice: Dice,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Generator {
        Generator {
            dice: Dice::new(seed),
        }
    }

    /// The next query.
    pub(super) fn query(&mut self) -> Node {
        let depth = 1 + self.dice.below(4);
        match self.dice.below(20) {
            0 => self.scalar(depth),
            _ => self.vector(depth),
        }
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.dice.below(from.len())]
    }

    fn maybe(&mut self, one_in: usize) -> bool {
        self.dice.below(one_in) == 0
    }

    fn scalar(&mut self, depth: usize) -> Node {
        if depth == 0 || self.maybe(2) {
            let number = self.pick(NUMBERS);
            return node!(Scalar: number);
        }
        match self.dice.below(6) {
            0 => node!(Scalar: "time()"),
            1 => node!(Scalar: "pi()"),
            2 => node!(Scalar: "scalar(", self.vector(depth - 1), ")"),
            3 => node!(Scalar: "-(", self.scalar(depth - 1), ")"),
            4 => {
                let op = self.pick(&["==", "!=", "<", ">=", ">"]);
                let (a, b) = (self.scalar(depth - 1), self.scalar(depth - 1));
                node!(Scalar: "(", a, format!(" {op} bool "), b, ")")
            }
            _ => {
                let op = self.pick(&["+", "-", "*", "/", "%", "^", "atan2"]);
                let (a, b) = (self.scalar(depth - 1), self.scalar(depth - 1));
                node!(Scalar: "(", a, format!(" {op} "), b, ")")
            }
        }
    }

    /// `offset` and `@`, most often neither.
    fn modifiers(&mut self) -> String {
        let at = ["@ start()", "@ end()", "@ 1772323000", "@ 1772322700.123"];
        let offset = ["offset 1m", "offset 7m", "offset -2m", "offset 13s"];
        match self.dice.below(16) {
            0 => format!(" {}", self.pick(&at)),
            1 | 2 => format!(" {}", self.pick(&offset)),
            3 => format!(" {} {}", self.pick(&offset), self.pick(&at)),
            _ => String::new(),
        }
    }

    fn selector(&mut self) -> Node {
        let from = match self.dice.below(10) {
            0..3 => COUNTERS,
            3..8 => GAUGES,
            _ => NATIVES,
        };
        let (name, modifiers) = (self.pick(from), self.modifiers());
        node!(Vector: format!("{name}{modifiers}"))
    }

    fn range(&mut self, depth: usize) -> Node {
        let range = self.pick(RANGES);
        if depth > 0 && self.maybe(4) {
            let (step, modifiers) = (self.pick(STEPS), self.modifiers());
            let inner = self.vector(depth - 1);
            return node!(Range: "(", inner, format!(")[{range}:{step}]{modifiers}"));
        }
        let from = match self.dice.below(10) {
            0..5 => COUNTERS,
            5..7 => GAUGES,
            _ => NATIVES,
        };
        let (name, modifiers) = (self.pick(from), self.modifiers());
        node!(Range: format!("{name}[{range}]{modifiers}"))
    }

    fn vector(&mut self, depth: usize) -> Node {
        if depth == 0 {
            return self.selector();
        }
        match self.dice.below(24) {
            0 | 1 => self.selector(),
            2..8 => self.over_range(depth),
            8..12 => self.aggregation(depth),
            12..15 => self.with_scalar(depth),
            15..19 => self.with_vector(depth),
            19 | 20 => self.on_histograms(depth),
            21 => self.on_labels(depth),
            22 => node!(Vector: "vector(", self.scalar(depth - 1), ")"),
            _ => self.elementwise(depth),
        }
    }

    fn over_range(&mut self, depth: usize) -> Node {
        let functions = [
            "rate",
            "rate",
            "increase",
            "increase",
            "irate",
            "delta",
            "idelta",
            "deriv",
            "resets",
            "changes",
            "sum_over_time",
            "avg_over_time",
            "min_over_time",
            "max_over_time",
            "count_over_time",
            "last_over_time",
            "first_over_time",
            "present_over_time",
            "stddev_over_time",
            "stdvar_over_time",
            "absent_over_time",
            "quantile_over_time",
            "predict_linear",
        ];
        let range = self.range(depth - 1);
        match self.pick(&functions) {
            "quantile_over_time" => {
                let q = self.pick(QUANTILES);
                node!(Vector: format!("quantile_over_time({q}, "), range, ")")
            }
            // Prometheus loses a subquery's `@` here.
            "predict_linear" => {
                let (range, ahead) = (self.range(0), self.scalar(depth - 1));
                node!(Vector: "predict_linear(", range, ", ", ahead, ")")
            }
            function => node!(Vector: format!("{function}("), range, ")"),
        }
    }

    fn grouping(&mut self) -> String {
        let word = match self.dice.below(4) {
            0 => return String::new(),
            1 => " without ",
            _ => " by ",
        };
        let count = self.dice.below(3);
        let labels: Vec<&str> = (0..count).map(|_| self.pick(LABELS)).collect();
        format!("{word}({})", labels.join(", "))
    }

    fn aggregation(&mut self, depth: usize) -> Node {
        let operators = [
            "sum",
            "sum",
            "sum",
            "avg",
            "avg",
            "min",
            "max",
            "count",
            "group",
            "stddev",
            "stdvar",
            "quantile",
            "count_values",
            "topk",
            "bottomk",
        ];
        let (operator, grouping) = (self.pick(&operators), self.grouping());
        let head = format!("{operator}{grouping} (");
        match operator {
            "quantile" => {
                let q = self.pick(QUANTILES);
                node!(Vector: format!("{head}{q}, "), self.vector(depth - 1), ")")
            }
            // A number's text has all its digits, of which the last may differ.
            "count_values" => {
                let from = self.pick(&["demo_num_cpus", "up", "many", "demo_requests_total"]);
                node!(Vector: format!("{head}\"value\", {from})"))
            }
            // Of equal values any may be chosen, so only over values that are not equal.
            "topk" | "bottomk" => {
                let (count, from) = (
                    self.pick(&["1", "2", "5"]),
                    self.pick(&[
                        "demo_memory_usage_bytes",
                        "demo_cyclic",
                        "demo_disk_usage_bytes",
                    ]),
                );
                node!(Vector: format!("{head}{count}, {from})"))
            }
            _ => node!(Vector: head, self.vector(depth - 1), ")"),
        }
    }

    fn with_scalar(&mut self, depth: usize) -> Node {
        let operators = [
            "+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "<", ">", "<=", ">=", "> bool",
            "== bool", "<= bool", "</", ">/",
        ];
        let op = format!(" {} ", self.pick(&operators));
        let (vector, scalar) = (self.vector(depth - 1), self.scalar(depth - 1));
        if self.maybe(3) {
            return node!(Vector: "(", scalar, op, vector, ")");
        }
        node!(Vector: "(", vector, op, scalar, ")")
    }

    fn with_vector(&mut self, depth: usize) -> Node {
        let set = ["and", "or", "unless"];
        let arithmetic = [
            "+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "<", ">", "<=", ">=", "> bool",
            "!= bool",
        ];
        let is_set = self.maybe(3);
        let op = if is_set {
            self.pick(&set)
        } else {
            self.pick(&arithmetic)
        };
        let mut op = format!(" {op} ");
        if !self.maybe(3) {
            let word = self.pick(&["on", "ignoring"]);
            let count = self.dice.below(3);
            let labels: Vec<&str> = (0..count).map(|_| self.pick(LABELS)).collect();
            op.push_str(&format!("{word} ({}) ", labels.join(", ")));
            if !is_set && self.maybe(2) {
                let side = self.pick(&["group_left", "group_right"]);
                let copied = self.pick(&["", "", "zone", "version", "nothing"]);
                // What is matched on can't be copied too.
                let clashes = word == "on" && labels.contains(&copied);
                op.push_str(&format!("{side} ({}) ", if clashes { "" } else { copied }));
            }
        }
        // Sides of one kind match more often than any two.
        let left = self.vector(depth - 1);
        let right = match self.dice.below(3) {
            0 => left.clone(),
            1 => node!(Vector: format!("{} offset 2m", self.pick(GAUGES))),
            _ => self.vector(depth - 1),
        };
        node!(Vector: "(", left, op, right, ")")
    }

    fn on_histograms(&mut self, depth: usize) -> Node {
        let from = match self.dice.below(4) {
            0 => {
                let (by, range) = (
                    self.pick(&["le", "le, path", "le, instance"]),
                    self.pick(RANGES),
                );
                node!(Vector: format!(
                    "sum by ({by}) (rate(demo_api_request_duration_seconds_bucket[{range}]))"
                ))
            }
            1 => node!(Vector: "rate(", self.range(0), ")"),
            2 => node!(Vector: self.pick(NATIVES)),
            _ => self.vector(depth - 1),
        };
        let functions = [
            "histogram_count",
            "histogram_sum",
            "histogram_avg",
            "histogram_stddev",
            "histogram_stdvar",
            "histogram_quantile",
            "histogram_quantile",
            "histogram_fraction",
        ];
        match self.pick(&functions) {
            "histogram_quantile" => {
                let q = self.pick(QUANTILES);
                node!(Vector: format!("histogram_quantile({q}, "), from, ")")
            }
            "histogram_fraction" => {
                let bounds = self.pick(&["0, 0.2", "-1, 1", "0.5, +Inf", "-Inf, 0.1"]);
                node!(Vector: format!("histogram_fraction({bounds}, "), from, ")")
            }
            function => node!(Vector: format!("{function}("), from, ")"),
        }
    }

    fn on_labels(&mut self, depth: usize) -> Node {
        // Not one that tells series apart by their kind: Prometheus lets a float and a histogram
        // of the same labels pass.
        let to = self.pick(&["new", "job", "team", "zone", "version", "mode"]);
        let from = self.pick(LABELS);
        let vector = self.vector(depth - 1);
        if self.maybe(3) {
            let other = self.pick(LABELS);
            let rest = format!(", \"{to}\", \"-\", \"{from}\", \"{other}\")");
            return node!(Vector: "label_join(", vector, rest);
        }
        let (replacement, pattern) = *self.dice.pick(&[
            ("$1", "(.*)"),
            ("x-$1", "(.).*"),
            ("", ".*"),
            ("$2$1", "(.*)[:/](.*)"),
            ("fixed", "demo-.*"),
        ]);
        let rest = format!(", \"{to}\", \"{replacement}\", \"{from}\", \"{pattern}\")");
        node!(Vector: "label_replace(", vector, rest)
    }

    fn elementwise(&mut self, depth: usize) -> Node {
        let functions = [
            "abs",
            "ceil",
            "floor",
            "exp",
            "sqrt",
            "ln",
            "log2",
            "log10",
            "round",
            "sgn",
            "-",
            "timestamp_of",
            "absent",
            "day_of_week",
            "hour",
            "month",
            "sort",
            "sort_desc",
            "sin",
            "atan",
            "deg",
            "clamp",
            "clamp_min",
            "round_to",
        ];
        let function = self.pick(&functions);
        let vector = self.vector(depth - 1);
        match function {
            // Prometheus loses samples where a selector has both `offset` and `@`.
            "timestamp_of" => {
                let from = if self.maybe(2) { COUNTERS } else { NATIVES };
                let name = self.pick(from);
                node!(Vector: format!("timestamp({name})"))
            }
            "clamp" => {
                let (low, high) = (self.scalar(depth - 1), self.scalar(depth - 1));
                node!(Vector: "clamp(", vector, ", ", low, ", ", high, ")")
            }
            "clamp_min" => node!(Vector: "clamp_min(", vector, ", ", self.scalar(depth - 1), ")"),
            "round_to" => node!(Vector: "round(", vector, ", ", self.scalar(depth - 1), ")"),
            _ => node!(Vector: format!("{function}("), vector, ")"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_queries_and_all_of_them_parse() {
        let (mut a, mut b) = (Generator::new(7), Generator::new(7));
        for _ in 0..500 {
            let query = a.query().to_string();
            assert_eq!(query, b.query().to_string());
            let parsed = slogate_promql::parse(&query);
            assert!(parsed.is_ok(), "{query}: {parsed:?}");
        }
    }

    #[test]
    fn smaller_queries_are_smaller_and_parse_too() {
        let mut generator = Generator::new(8);
        for _ in 0..50 {
            let query = generator.query();
            for smaller in query.smaller() {
                let text = smaller.to_string();
                assert!(text.len() < query.to_string().len(), "{text} of {query}");
                let parsed = slogate_promql::parse(&text);
                assert!(parsed.is_ok(), "{text}: {parsed:?}");
            }
        }
    }
}
