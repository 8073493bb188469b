//! Names that are close to one that is not there.

/// Of the names known, the one that somebody may have meant by `name`.
pub fn closest<'a>(known: &[&'a str], name: &str) -> Option<&'a str> {
    let near = known.iter().map(|each| (distance(each, name), *each));
    near.filter(|(distance, _)| *distance <= 1 + name.chars().count() / 4).min().map(|(_, each)| each)
}

/// Levenshtein's distance: insertions, deletions and exchanges from one to the other.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{closest, distance};

    #[test]
    fn distance_counts_single_changes() {
        for (a, b, expected) in
            [("", "", 0), ("eth0", "", 4), ("eth0", "eth1", 1), ("eth0", "et0", 1), ("lo", "ol", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn what_is_far_is_not_meant() {
        let known = ["completed", "refused", "attempts"];
        assert_eq!(closest(&known, "completd"), Some("completed"));
        assert_eq!(closest(&known, "atempt"), Some("attempts"));
        assert_eq!(closest(&known, "latency"), None);
        assert_eq!(closest(&[], "latency"), None);
    }
}
