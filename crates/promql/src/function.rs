//! The functions of PromQL and their signatures.
//!
//! The parser checks calls against this table; the evaluator implements them by name. A
//! test holds the two together: every function here has an implementation.

use crate::ast::ValueType;
use ValueType::{Matrix, Scalar, String, Vector};

/// A function's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// The name as written.
    pub name: &'static str,
    /// The types of the arguments.
    pub args: &'static [ValueType],
    /// How many of the arguments may be left out or repeated.
    pub arity: Arity,
    /// The type of the result.
    pub returns: ValueType,
    /// Whether Prometheus has it behind a feature flag.
    pub is_experimental: bool,
    /// Whether its second argument is matchers in braces and no expression (`info`).
    pub takes_label_selector: bool,
}

/// How many arguments a function takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly those listed.
    Exact,
    /// The last one listed may be left out, or repeated up to this many times.
    LastUpTo(usize),
    /// The last one listed may be left out, or repeated at will.
    LastAnyTimes,
}

impl Function {
    /// The function of this name.
    pub fn find(name: &str) -> Option<&'static Function> {
        FUNCTIONS
            .binary_search_by(|function| function.name.cmp(name))
            .ok()
            .map(|at| &FUNCTIONS[at])
    }

    /// Every function, sorted by name.
    pub fn all() -> &'static [Function] {
        FUNCTIONS
    }

    /// The fewest arguments it takes.
    pub fn args_min(&self) -> usize {
        match self.arity {
            Arity::Exact => self.args.len(),
            Arity::LastUpTo(_) | Arity::LastAnyTimes => self.args.len().saturating_sub(1),
        }
    }

    /// The most arguments it takes; `None` where there is no limit.
    pub fn args_max(&self) -> Option<usize> {
        match self.arity {
            Arity::Exact => Some(self.args.len()),
            Arity::LastUpTo(times) => Some(self.args.len().saturating_sub(1) + times),
            Arity::LastAnyTimes => None,
        }
    }

    /// The type of the argument at `at`, from 0; past the list, the last one's.
    pub fn arg_type(&self, at: usize) -> Option<ValueType> {
        self.args.get(at).or(self.args.last()).copied()
    }
}

const fn exact(name: &'static str, args: &'static [ValueType], returns: ValueType) -> Function {
    Function {
        name,
        args,
        arity: Arity::Exact,
        returns,
        is_experimental: false,
        takes_label_selector: false,
    }
}

const fn optional_last(name: &'static str, args: &'static [ValueType]) -> Function {
    Function {
        arity: Arity::LastUpTo(1),
        ..exact(name, args, Vector)
    }
}

const fn repeated_last(name: &'static str, args: &'static [ValueType]) -> Function {
    Function {
        arity: Arity::LastAnyTimes,
        ..exact(name, args, Vector)
    }
}

const fn experimental(function: Function) -> Function {
    Function {
        is_experimental: true,
        ..function
    }
}

/// Sorted by name.
static FUNCTIONS: &[Function] = &[
    exact("abs", &[Vector], Vector),
    exact("absent", &[Vector], Vector),
    exact("absent_over_time", &[Matrix], Vector),
    exact("acos", &[Vector], Vector),
    exact("acosh", &[Vector], Vector),
    exact("asin", &[Vector], Vector),
    exact("asinh", &[Vector], Vector),
    exact("atan", &[Vector], Vector),
    exact("atanh", &[Vector], Vector),
    exact("avg_over_time", &[Matrix], Vector),
    exact("ceil", &[Vector], Vector),
    exact("changes", &[Matrix], Vector),
    exact("clamp", &[Vector, Scalar, Scalar], Vector),
    exact("clamp_max", &[Vector, Scalar], Vector),
    exact("clamp_min", &[Vector, Scalar], Vector),
    exact("cos", &[Vector], Vector),
    exact("cosh", &[Vector], Vector),
    exact("count_over_time", &[Matrix], Vector),
    optional_last("day_of_month", &[Vector]),
    optional_last("day_of_week", &[Vector]),
    optional_last("day_of_year", &[Vector]),
    optional_last("days_in_month", &[Vector]),
    exact("deg", &[Vector], Vector),
    exact("delta", &[Matrix], Vector),
    exact("deriv", &[Matrix], Vector),
    experimental(exact(
        "double_exponential_smoothing",
        &[Matrix, Scalar, Scalar],
        Vector,
    )),
    experimental(exact("end", &[], Scalar)),
    exact("exp", &[Vector], Vector),
    exact("first_over_time", &[Matrix], Vector),
    exact("floor", &[Vector], Vector),
    exact("histogram_avg", &[Vector], Vector),
    exact("histogram_count", &[Vector], Vector),
    exact("histogram_fraction", &[Scalar, Scalar, Vector], Vector),
    exact("histogram_quantile", &[Scalar, Vector], Vector),
    experimental(Function {
        arity: Arity::LastUpTo(10),
        ..exact("histogram_quantiles", &[Vector, String, Scalar], Vector)
    }),
    exact("histogram_stddev", &[Vector], Vector),
    exact("histogram_stdvar", &[Vector], Vector),
    exact("histogram_sum", &[Vector], Vector),
    optional_last("hour", &[Vector]),
    exact("idelta", &[Matrix], Vector),
    exact("increase", &[Matrix], Vector),
    experimental(Function {
        takes_label_selector: true,
        ..optional_last("info", &[Vector, Vector])
    }),
    exact("irate", &[Matrix], Vector),
    repeated_last("label_join", &[Vector, String, String, String]),
    exact(
        "label_replace",
        &[Vector, String, String, String, String],
        Vector,
    ),
    exact("last_over_time", &[Matrix], Vector),
    exact("ln", &[Vector], Vector),
    exact("log10", &[Vector], Vector),
    exact("log2", &[Vector], Vector),
    experimental(exact("mad_over_time", &[Matrix], Vector)),
    experimental(exact("max_of", &[Scalar, Scalar], Scalar)),
    exact("max_over_time", &[Matrix], Vector),
    experimental(exact("min_of", &[Scalar, Scalar], Scalar)),
    exact("min_over_time", &[Matrix], Vector),
    optional_last("minute", &[Vector]),
    optional_last("month", &[Vector]),
    exact("pi", &[], Scalar),
    exact("predict_linear", &[Matrix, Scalar], Vector),
    exact("present_over_time", &[Matrix], Vector),
    exact("quantile_over_time", &[Scalar, Matrix], Vector),
    exact("rad", &[Vector], Vector),
    experimental(exact("range", &[], Scalar)),
    exact("rate", &[Matrix], Vector),
    exact("resets", &[Matrix], Vector),
    optional_last("round", &[Vector, Scalar]),
    exact("scalar", &[Vector], Scalar),
    exact("sgn", &[Vector], Vector),
    exact("sin", &[Vector], Vector),
    exact("sinh", &[Vector], Vector),
    exact("sort", &[Vector], Vector),
    experimental(repeated_last("sort_by_label", &[Vector, String])),
    experimental(repeated_last("sort_by_label_desc", &[Vector, String])),
    exact("sort_desc", &[Vector], Vector),
    exact("sqrt", &[Vector], Vector),
    experimental(exact("start", &[], Scalar)),
    experimental(exact("start_timestamp", &[Vector], Vector)),
    exact("stddev_over_time", &[Matrix], Vector),
    exact("stdvar_over_time", &[Matrix], Vector),
    experimental(exact("step", &[], Scalar)),
    exact("sum_over_time", &[Matrix], Vector),
    exact("tan", &[Vector], Vector),
    exact("tanh", &[Vector], Vector),
    exact("time", &[], Scalar),
    exact("timestamp", &[Vector], Vector),
    experimental(exact("ts_of_first_over_time", &[Matrix], Vector)),
    experimental(exact("ts_of_last_over_time", &[Matrix], Vector)),
    experimental(exact("ts_of_max_over_time", &[Matrix], Vector)),
    experimental(exact("ts_of_min_over_time", &[Matrix], Vector)),
    exact("vector", &[Scalar], Vector),
    optional_last("year", &[Vector]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_holds_all_stable_functions() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(FUNCTIONS.iter().filter(|f| !f.is_experimental).count(), 73);
        assert_eq!(Function::find("rate").map(|f| f.returns), Some(Vector));
        assert_eq!(Function::find("rat"), None);
    }

    #[test]
    fn arities_follow_the_signatures() {
        let range = |name| Function::find(name).map(|f| (f.args_min(), f.args_max()));
        assert_eq!(range("rate"), Some((1, Some(1))));
        assert_eq!(range("round"), Some((1, Some(2))));
        assert_eq!(range("hour"), Some((0, Some(1))));
        assert_eq!(range("label_join"), Some((3, None)));
        assert_eq!(range("histogram_quantiles"), Some((2, Some(12))));
    }
}
