//! The known name that an unknown one was probably meant to be.

/// The closest of `known`, if it is close enough: a third of its characters may be wrong, and at least one.
pub(crate) fn closest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Whoever writes forty times the length of any name did not mistype one.
    if unknown.len() > 64 {
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

fn folded(name: &str) -> Vec<char> {
    name.chars().map(|c| if c == '_' || c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Insertions, removals, replacements and swaps of neighbours that make `b` of `a` (optimal string alignment).
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
    fn only_what_is_close_is_suggested() {
        let words = ["acpi", "devicetree", "mptable"];
        assert_eq!(closest("apci", words), Some("acpi"));
        assert_eq!(closest("device_tree", words), Some("devicetree"));
        assert_eq!(closest("MPTABLE", words), Some("mptable"));
        assert_eq!(closest("uefi", words), None);
    }
}
