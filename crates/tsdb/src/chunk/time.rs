//! The time part of a sample: when it was taken and when its count began.
//!
//! Sample times go through the adaptive code, one bit each while they are regular. The
//! start time is written with the first sample and again, behind a mark, only where it
//! changes: a count that keeps running pays nothing for it.

use super::bits::{BitReader, BitWriter};
use super::rice::{Code, Rice, get_full, put_full};

/// The state that encoder and decoder share: the last sample's times.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) t_ms: i64,
    pub(crate) start_ms: i64,
    steps: Rice,
    begun: bool,
}

impl Times {
    /// Appends a sample's times. Any order is accepted, though only ascending is compact.
    #[inline]
    pub(crate) fn put(&mut self, out: &mut BitWriter, t_ms: i64, start_ms: i64) {
        if self.begun {
            if start_ms != self.start_ms {
                self.steps.put_mark(out);
                put_full(out, start_ms.wrapping_sub(self.start_ms));
            }
            self.steps.put(out, t_ms.wrapping_sub(self.t_ms));
        } else {
            put_full(out, t_ms);
            put_full(out, start_ms);
            self.begun = true;
        }
        self.t_ms = t_ms;
        self.start_ms = start_ms;
    }

    /// Reads the next sample's times into the state.
    #[inline]
    pub(crate) fn get(&mut self, input: &mut BitReader<'_>) -> Option<()> {
        if !self.begun {
            self.t_ms = get_full(input)?;
            self.start_ms = get_full(input)?;
            self.begun = true;
            return Some(());
        }
        let mut code = self.steps.get(input)?;
        if code == Code::Mark {
            self.start_ms = self.start_ms.wrapping_add(get_full(input)?);
            code = self.steps.get(input)?;
        }
        match code {
            Code::Change(step) => self.t_ms = self.t_ms.wrapping_add(step),
            Code::Mark => return None,
        }
        Some(())
    }
}
