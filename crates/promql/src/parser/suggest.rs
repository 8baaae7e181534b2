//! What a misspelt name may have meant.

use crate::function::Function;

/// The message for a name that is no function.
pub(super) fn unknown_function(name: &str) -> String {
    let near = Function::all()
        .iter()
        // Of names equally near, one that was merely cut short is the likelier.
        .map(|function| {
            let distance = edit_distance(name, function.name);
            (distance, !function.name.starts_with(name), function.name)
        })
        .min()
        .filter(|(distance, _, known)| *distance <= 2 && *distance < known.len());
    match near {
        Some((_, _, known)) => {
            format!("unknown function with name {name:?}; did you mean {known:?}?")
        }
        None => format!("unknown function with name {name:?}"),
    }
}

/// The Levenshtein distance of two short names; a long `a` is as good as far away.
fn edit_distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, above) in b.bytes().zip(row.iter_mut().skip(1)) {
            let here = (diagonal + usize::from(x != y))
                .min(left + 1)
                .min(*above + 1);
            diagonal = *above;
            *above = here;
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_function() {
        assert!(unknown_function("rat").contains("did you mean \"rate\""));
        assert!(unknown_function("histogram_quantil").contains("\"histogram_quantile\""));
        assert!(!unknown_function("frobnicate").contains("did you mean"));
        assert!(!unknown_function(&"x".repeat(100_000)).contains("did you mean"));
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
