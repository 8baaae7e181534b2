//! PromQL: text to tree to value, over anything that can be asked for series.
//!
//! ```
//! use slogate_promql::{Engine, QueryValue};
//! use slogate_series::{Labels, Sample, Series, Value};
//!
//! let sample = |t_ms, value| Sample { t_ms, start_ms: 0, value: Value::Float(value) };
//! let store = vec![Series {
//!     labels: Labels::from_pairs([("__name__", "requests_total"), ("code", "200")]),
//!     samples: vec![sample(0, 0.0), sample(15_000, 30.0), sample(30_000, 60.0)],
//! }];
//! let result = Engine::default().instant("sum(rate(requests_total[1m])) * 60", &store, 30_000)?;
//! assert!(matches!(result.value, QueryValue::Vector(elements) if elements.len() == 1));
//! # Ok::<(), slogate_promql::EvalError>(())
//! ```
//!
//! `examples/evaluate.rs` evaluates a query given on the command line.
//!
//! The way through the crate:
//! - `lexer` and `parser` make a typed tree ([`ast`]) with the place of every node, against
//!   the signatures in [`function`]; [`duration`] holds what stands in brackets and after
//!   `offset`. [`ParseError`] shows the place; a tree prints itself back.
//! - [`Queryable`] is all that the evaluator asks of a store.
//! - `eval` computes a tree over a grid of steps; [`Engine`] is its face.
//! - [`notation`] reads series as test files write them.
//!
//! Policy:
//! - Text is bounded before it is read: 64 KiB, 128 levels of nesting, 400 operators in a
//!   chain. A query is bounded while it runs: by samples held and by steps. An
//!   [`Interrupt`] ends it early.
//! - Labels are UTF-8; in a matcher, escapes that make other bytes are a parse error.
//!
//! Semantics are those of Prometheus 3.14 with no feature flags set. What Prometheus has
//! behind flags is behind fields here, and each is off where the flag is off by default:
//!
//! | Prometheus's feature flag | here |
//! |---|---|
//! | `promql-experimental-functions` | [`ParseOptions::experimental_functions`]: `info`, `limitk`, `limit_ratio`, `sort_by_label`, `mad_over_time`, `ts_of_*_over_time`, `histogram_quantiles`, `start_timestamp`, … |
//! | `promql-duration-expr` (on since 3.14) | [`ParseOptions::duration_expressions`]: `[5m*2]`, `offset step()`, `[max_of(1m, range())]` |
//! | `promql-extended-range-selectors` | [`ParseOptions::extended_range_selectors`]: `anchored`, `smoothed` |
//! | `promql-binop-fill-modifiers` | [`ParseOptions::fill_modifiers`]: `fill()`, `fill_left()`, `fill_right()` |
//! | `promql-delayed-name-removal` | [`Engine::delayed_name_removal`] |
//! | `use-start-timestamps` | [`Engine::use_start_timestamps`] |
//! | `type-and-unit-labels` | [`Engine::type_and_unit_labels`] |
//!
//! The crate does no I/O, reads no clock and starts no thread; it uses `slogate-series` and
//! nothing else of slogate.

#![forbid(unsafe_code)]

pub mod ast;
mod display;
pub mod duration;
mod error;
mod eval;
pub mod function;
mod interrupt;
mod lexer;
mod literal;
pub mod notation;
mod parser;
mod pretty;
mod queryable;

pub use ast::{Expr, Span, ValueType};
pub use error::{ParseError, position};
pub use eval::{
    Annotation, AnnotationLevel, Engine, EvalError, InstantSample, Query, QueryResult, QueryStats,
    QueryValue,
};
pub use interrupt::Interrupt;
pub use parser::{
    HEIGHT_MAX, NESTING_MAX, ParseOptions, QUERY_BYTES_MAX, parse, parse_selector, parse_with,
};
pub use queryable::{FloatPoint, HistogramPoint, Queryable, QueryableError, Samples, Selection};
