#![forbid(unsafe_code)]

pub mod ast;
mod display;
pub mod duration;
mod error;
pub mod function;
mod lexer;
mod literal;
mod parser;

pub use ast::{Expr, Span, ValueType};
pub use error::{ParseError, position};
pub use parser::{HEIGHT_MAX, NESTING_MAX, ParseOptions, QUERY_BYTES_MAX, parse, parse_with};
