//! Names that are close to one that is not there.

use strsim::osa_distance;

/// The known name that `name` is probably a misspelling of.
pub fn closest<'a>(known: &[&'a str], name: &str) -> Option<&'a str> {
    let near = known.iter().map(|each| (osa_distance(each, name), *each));
    near.filter(|(distance, _)| *distance <= 1 + name.chars().count() / 4).min().map(|(_, each)| each)
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn what_is_far_is_not_meant() {
        let known = ["completed", "refused", "attempts"];
        assert_eq!(closest(&known, "completd"), Some("completed"));
        assert_eq!(closest(&known, "atempt"), Some("attempts"));
        assert_eq!(closest(&known, "latency"), None);
        assert_eq!(
            closest(&["pod", "port"], "prot"),
            Some("port"),
            "two letters that changed places are one fault"
        );
        assert_eq!(closest(&[], "latency"), None);
    }
}
