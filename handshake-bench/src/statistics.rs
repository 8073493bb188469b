//! Statistics of samples that other load on the machine disturbs: the median is robust against it, the least
//! shows what was possible.

/// The summary of one subject's samples, in their unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// The median; of an even number of samples the middle between the two middle ones.
    pub(crate) median: f64,
    /// The smallest sample.
    pub(crate) least: f64,
}

impl Summary {
    /// Summarises samples; without any sample both figures are NaN.
    pub(crate) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
            (Some(below), Some(above)) if sorted.len().is_multiple_of(2) => below.midpoint(*above),
            (_, Some(above)) => *above,
            _ => f64::NAN,
        };
        Self { median, least: sorted.first().copied().unwrap_or(f64::NAN) }
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn the_median_is_the_middle_and_the_least_the_first() {
        assert_eq!(Summary::of(&[30.0, 10.0, 900.0]), Summary { median: 30.0, least: 10.0 });
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 90.0]), Summary { median: 3.0, least: 1.0 });
        assert_eq!(Summary::of(&[7.0]), Summary { median: 7.0, least: 7.0 });
        assert!(Summary::of(&[]).median.is_nan());
    }
}
