//! Interned label names and values.
//!
//! A symbol counts its uses, so that a name or value goes when the last series with it
//! goes: versions and instances come and go for as long as the daemon runs. A freed number
//! is given to the next new string; nothing outside of a shard ever sees one.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

/// The number of a string within one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Symbol(u32);

#[derive(Debug)]
struct Entry {
    text: Arc<str>,
    uses: u32,
}

/// The strings of one shard.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_text: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    text_bytes: usize,
}

impl Symbols {
    /// The number of `text`, if any series uses it.
    pub(crate) fn find(&self, text: &str) -> Option<Symbol> {
        let hash = self.hasher.hash_one(text);
        self.by_text
            .find(hash, |at| self.entry_is(*at, text))
            .map(|at| Symbol(*at))
    }

    /// The number of `text`, counting one more use.
    pub(crate) fn intern(&mut self, text: &Arc<str>) -> Symbol {
        if let Some(symbol) = self.find(text) {
            if let Some(Some(entry)) = self.entries.get_mut(symbol.0 as usize) {
                entry.uses += 1;
            }
            return symbol;
        }
        let entry = Some(Entry {
            text: Arc::clone(text),
            uses: 1,
        });
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(slot) = self.entries.get_mut(at as usize) {
                    *slot = entry;
                }
                at
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.text_bytes += text.len();
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.by_text
            .insert_unique(hasher.hash_one(&**text), at, |at| {
                hasher.hash_one(text_at(entries, *at))
            });
        Symbol(at)
    }

    /// Counts one use less.
    pub(crate) fn release(&mut self, symbol: Symbol) {
        let Some(slot) = self.entries.get_mut(symbol.0 as usize) else {
            return;
        };
        let Some(entry) = slot else { return };
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&*entry.text);
        self.text_bytes -= entry.text.len();
        *slot = None;
        if let Ok(found) = self.by_text.find_entry(hash, |at| *at == symbol.0) {
            found.remove();
        }
        self.free.push(symbol.0);
    }

    /// The string behind a number.
    #[inline]
    pub(crate) fn text(&self, symbol: Symbol) -> &str {
        text_at(&self.entries, symbol.0)
    }

    /// The string behind a number, shared.
    pub(crate) fn shared(&self, symbol: Symbol) -> Arc<str> {
        match self.entries.get(symbol.0 as usize) {
            Some(Some(entry)) => Arc::clone(&entry.text),
            _ => Arc::from(""),
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        // Two counters before each string, and the table's number and tag.
        self.text_bytes
            + self.entries.len() * (16 + size_of::<Option<Entry>>())
            + self.by_text.capacity() * 5
    }

    fn entry_is(&self, at: u32, text: &str) -> bool {
        matches!(self.entries.get(at as usize), Some(Some(entry)) if *entry.text == *text)
    }
}

fn text_at(entries: &[Option<Entry>], at: u32) -> &str {
    match entries.get(at as usize) {
        Some(Some(entry)) => &entry.text,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_lives_as_long_as_it_is_used() {
        let mut symbols = Symbols::default();
        let a = symbols.intern(&Arc::from("a"));
        assert_eq!(symbols.intern(&Arc::from("a")), a);
        symbols.release(a);
        assert_eq!(symbols.find("a"), Some(a));
        symbols.release(a);
        assert_eq!(symbols.find("a"), None);
        let b = symbols.intern(&Arc::from("b"));
        assert_eq!(b, a, "a freed number is reused");
        assert_eq!(symbols.text(b), "b");
    }

    #[test]
    fn many_strings_survive_growth() {
        let mut symbols = Symbols::default();
        let numbers: Vec<_> = (0..2_000)
            .map(|i| symbols.intern(&Arc::from(format!("value-{i}"))))
            .collect();
        for (i, number) in numbers.iter().enumerate() {
            assert_eq!(symbols.find(&format!("value-{i}")), Some(*number));
        }
    }
}
