//! Ending an evaluation from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::EvalError;

const RUNS: u8 = 0;
const CANCELED: u8 = 1;
const TIMED_OUT: u8 = 2;

/// A flag that ends an evaluation early. Clones share it; the first to raise it decides how
/// the evaluation ends. Clocks and connections belong to whoever holds a clone: the evaluator
/// only looks at the flag, at least once for each series it reads.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicU8>);

impl Interrupt {
    /// A flag that nobody has raised.
    pub fn new() -> Self {
        Interrupt::default()
    }

    /// Nobody wants the result any more: ends with [`EvalError::Canceled`].
    pub fn cancel(&self) {
        self.raise(CANCELED);
    }

    /// The query's time is over: ends with [`EvalError::Timeout`].
    pub fn time_out(&self) {
        self.raise(TIMED_OUT);
    }

    /// Whether the evaluation goes on.
    ///
    /// # Errors
    /// With what the flag was raised for.
    pub fn check(&self) -> Result<(), EvalError> {
        match self.0.load(Ordering::Relaxed) {
            RUNS => Ok(()),
            TIMED_OUT => Err(EvalError::Timeout),
            _ => Err(EvalError::Canceled),
        }
    }

    fn raise(&self, to: u8) {
        // Where it was raised before, that stands.
        let _ = self
            .0
            .compare_exchange(RUNS, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_raise_it_decides() {
        let interrupt = Interrupt::new();
        assert_eq!(interrupt.check(), Ok(()));
        interrupt.clone().time_out();
        interrupt.cancel();
        assert_eq!(interrupt.check(), Err(EvalError::Timeout));
        let error = interrupt.check().unwrap_err().to_string();
        assert_eq!(error, "query timed out in expression evaluation");
    }
}
