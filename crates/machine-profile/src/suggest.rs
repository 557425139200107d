//! Suggestions for unknown names.

/// The name of `known` with the smallest edit distance to `unknown`; `None` if every distance is more than a third of the
/// name's length and more than 1.
pub(crate) fn closest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No key is nearly that long. This also bounds the cost.
    if unknown.len() > MAX_LEN {
        return None;
    }
    let unknown: Vec<char> = folded(unknown);
    known
        .into_iter()
        .map(|name| (distance(&unknown, &folded(name)), name))
        .filter(|&(distance, name)| distance <= (name.chars().count() / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// The maximum length, in bytes, of a name that gets a suggestion.
const MAX_LEN: usize = 64;

fn folded(name: &str) -> Vec<char> {
    name.chars().map(|c| if c == '_' || c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The edit distance between `a` and `b`: insertions, removals, replacements and swaps of neighbours (optimal string
/// alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(from != to);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from == b[j - 1] && a[i - 1] == to {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_counts_once() {
        let distance = |a: &str, b: &str| distance(&folded(a), &folded(b));
        assert_eq!(distance("vpcus", "vcpus"), 1);
        assert_eq!(distance("memory", "memroy"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn only_similar_names_are_suggested() {
        let words = ["acpi", "devicetree", "mptable"];
        assert_eq!(closest("apci", words), Some("acpi"));
        assert_eq!(closest("device_tree", words), Some("devicetree"));
        assert_eq!(closest("MPTABLE", words), Some("mptable"));
        assert_eq!(closest("uefi", words), None);
    }
}
