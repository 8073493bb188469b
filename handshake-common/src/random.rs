//! Words that pass for random and that a seed gives always: for a replay's hash factors and for tests, not for
//! secrets.

/// The next word of the SplitMix64 sequence that begins with a seed, which becomes the seed of the rest (Steele,
/// Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
#[must_use]
pub const fn split_mix(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *seed;
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    /// The first words of the sequence of 1234567, as the reference implementation has them (Vigna, splitmix64.c).
    #[test]
    fn the_sequence_is_the_published_one() {
        let mut seed = 1_234_567;
        let words = [(); 3].map(|()| super::split_mix(&mut seed));
        assert_eq!(words, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
