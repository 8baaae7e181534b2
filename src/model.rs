//! The vocabulary as types.
