//! Suggestions for misspelt names.

/// The longest name that is compared, bytes: longer ones are no typing errors, and comparing them is slow.
const MAX_LENGTH: usize = 64;

/// The most similar of `names`, if it is similar enough.
#[inline(never)]
pub(super) fn nearest<'n>(given: &str, names: &[&'n str]) -> Option<&'n str> {
    if given.len() > MAX_LENGTH {
        return None;
    }
    let given: Vec<char> = given.to_lowercase().chars().collect();
    let near_enough = (given.len() / 3).max(2);
    let distances = names.iter().map(|name| (distance(&given, name), *name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= near_enough && distance < name.len()).then_some(name)
}

/// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours cost 1 each.
fn distance(given: &[char], name: &str) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=given.len()).collect();
    let mut name_before = None;
    for (row, c) in name.chars().enumerate() {
        let mut current = Vec::with_capacity(last.len());
        let mut left = row + 1;
        current.push(left);
        let mut given_before = None;
        for (column, g) in given.iter().enumerate() {
            let above_left = last.get(column).copied().unwrap_or(usize::MAX);
            let above = last.get(column + 1).copied().unwrap_or(usize::MAX);
            let mut cost = (above_left + usize::from(*g != c)).min(above + 1).min(left + 1);
            if given_before == Some(c) && name_before == Some(*g) {
                let swapped = column.checked_sub(1).and_then(|at| before_last.get(at)).copied();
                cost = cost.min(swapped.map_or(cost, |swapped| swapped + 1));
            }
            current.push(cost);
            left = cost;
            given_before = Some(*g);
        }
        name_before = Some(c);
        before_last = core::mem::replace(&mut last, current);
    }
    last.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn between(a: &str, b: &str) -> usize {
        distance(&a.chars().collect::<Vec<_>>(), b)
    }

    #[test]
    fn each_slip_costs_one() {
        for (given, name, expected) in [
            ("", "", 0),
            ("", "via", 3),
            ("policy", "policy", 0),
            ("polcy", "policy", 1),
            ("pollicy", "policy", 1),
            ("polisy", "policy", 1),
            ("ploicy", "policy", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(between(given, name), expected, "{given} {name}");
            assert_eq!(between(name, given), expected, "{name} {given}");
        }
    }

    #[test]
    fn only_what_could_be_meant_is_suggested() {
        let names = ["cluster", "endpoints", "policy", "signals"];
        assert_eq!(nearest("Polcy", &names), Some("policy"));
        assert_eq!(nearest("signal", &names), Some("signals"));
        assert_eq!(nearest("timeout", &names), None);
        assert_eq!(nearest(&"p".repeat(10_000), &names), None);
        assert_eq!(nearest("xy", &["a", "to"]), None);
    }
}
