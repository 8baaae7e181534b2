//! Where series are asked for.
