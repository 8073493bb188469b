//! The memory of interpreted programs: regions of plain bytes, little-endian as the object, with each access
//! checked.
//!
//! All addresses are below 2³², so that the 32-bit fields of a context hold pointers as they are.

use anyhow::{Context, Result, ensure};

/// The space behind a region: an access past its end hits nothing. A replaced region may grow into it.
const GAP: u64 = 1 << 16;

/// All regions, by rising address.
#[derive(Default)]
pub(super) struct Memory {
    regions: Vec<Region>,
}

struct Region {
    start: u64,
    bytes: Vec<u8>,
}

impl Memory {
    /// Adds a region. Returns its address, which is [`GAP`] or more.
    pub(super) fn add(&mut self, bytes: Vec<u8>) -> u64 {
        let end = self.regions.last().map_or(0, |last| last.start + last.bytes.len() as u64);
        let start = end.next_multiple_of(GAP) + GAP;
        self.regions.push(Region { start, bytes });
        start
    }

    /// Replaces the region that begins at `start` by other bytes, no more than a gap.
    pub(super) fn replace(&mut self, start: u64, bytes: &[u8]) -> Result<()> {
        ensure!(bytes.len() as u64 <= GAP, "{} bytes do not fit into a gap", bytes.len());
        let region = self.regions.iter_mut().find(|region| region.start == start);
        region.context("no region begins there")?.bytes = bytes.to_vec();
        Ok(())
    }

    /// The `size` bytes from `address` on.
    pub(super) fn bytes(&self, address: u64, size: usize) -> Result<&[u8]> {
        let (region, place) = self.find(address);
        let bytes = region.and_then(|region| self.regions[region].bytes.get(place..)?.get(..size));
        bytes.with_context(|| format!("{size} bytes at {address:#x} are outside of memory"))
    }

    /// Writes bytes from `address` on.
    pub(super) fn set(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let (region, place) = self.find(address);
        let regions = &mut self.regions;
        let to = region.and_then(|region| regions[region].bytes.get_mut(place..)?.get_mut(..bytes.len()));
        to.with_context(|| format!("{} bytes at {address:#x} are outside of memory", bytes.len()))?
            .copy_from_slice(bytes);
        Ok(())
    }

    /// The number in the `size` bytes from `address` on, at most eight.
    pub(super) fn load(&self, address: u64, size: usize) -> Result<u64> {
        let mut word = [0; 8];
        word[..size].copy_from_slice(self.bytes(address, size)?);
        Ok(u64::from_le_bytes(word))
    }

    /// Writes the lower `size` bytes of a number.
    pub(super) fn store(&mut self, address: u64, size: usize, value: u64) -> Result<()> {
        self.set(address, &value.to_le_bytes()[..size])
    }

    /// The region that may hold an address, and the place in it.
    fn find(&self, address: u64) -> (Option<usize>, usize) {
        let region = self.regions.partition_point(|region| region.start <= address).checked_sub(1);
        let place = region.and_then(|region| usize::try_from(address - self.regions[region].start).ok());
        (region, place.unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_a_region_is_reached() {
        let mut memory = Memory::default();
        let (one, two) = (memory.add(vec![0; 12]), memory.add(vec![0; 8]));
        assert!(two > one + 12, "a gap lies between two regions");
        memory.store(one + 3, 8, 0x0123_4567_89ab_cdef).expect("misaligned, and within");
        assert_eq!(memory.load(one + 4, 2).expect("within"), 0xabcd);
        assert_eq!(memory.load(one + 10, 1).expect("within"), 0x01);
        for (address, size) in
            [(one - 1, 1), (one + 5, 8), (one + 12, 1), (two + 8, 1), (0, 8), (u64::MAX, 8)]
        {
            assert!(memory.load(address, size).is_err(), "{address:#x}");
            assert!(memory.store(address, size, 0).is_err(), "{address:#x}");
        }
        memory.replace(two, &[7; 9]).expect("a region");
        assert_eq!(memory.load(two + 8, 1).expect("within"), 7);
    }
}
