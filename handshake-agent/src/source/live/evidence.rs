//! The packets that the programs have kept: slots in memory that are written round and round, a part of them
//! for each CPU.

use handshake_common::abi::{KEPT_PACKETS, KeptPacket};
use handshake_common::shared::{Shared64, read_fence};
use zerocopy::FromBytes as _;

use super::mapping::Mapping;

/// Words of a slot.
const WORDS: usize = size_of::<KeptPacket>() / size_of::<u64>();
/// A slot as it lies in memory.
pub(super) type Slot = [Shared64; WORDS];

/// The slots that each of so many CPUs has.
#[expect(clippy::cast_possible_truncation, reason = "there are some 15,000 in all")]
pub(super) const fn slots_of_each(cpus: usize) -> u32 {
    let each = KEPT_PACKETS / if cpus == 0 { 1 } else { cpus };
    if each == 0 { 1 } else { each as u32 }
}

/// The slots.
pub(super) struct KeptPackets(pub(super) Mapping<Slot>);

impl KeptPackets {
    /// Calls `visit` with each packet that is there now.
    pub(super) fn each(&self, visit: &mut dyn FnMut(&KeptPacket)) {
        self.0.iter().filter_map(read).for_each(|packet| visit(&packet));
    }
}

/// A copy, if its time is the same before and after.
fn read(slot: &Slot) -> Option<KeptPacket> {
    let ns = slot[0].load();
    read_fence();
    let mut bytes = [0; size_of::<KeptPacket>()];
    for (bytes, word) in bytes.chunks_exact_mut(size_of::<u64>()).zip(slot) {
        bytes.copy_from_slice(&word.load().to_ne_bytes());
    }
    read_fence();
    let packet = KeptPacket::read_from_bytes(&bytes).ok()?;
    (ns != 0 && packet.ns == ns && slot[0].load() == ns).then_some(packet)
}

#[cfg(test)]
mod tests {
    use handshake_common::abi::KeptPacket;
    use handshake_common::shared::Shared64;
    use zerocopy::IntoBytes as _;

    use super::{Slot, WORDS, read, slots_of_each};

    fn slot(ns: u64) -> Slot {
        let packet = KeptPacket { ns, length: 60, interface: 3, bytes: [9; 256] };
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(packet.as_bytes().chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
        }
        words.map(|word| {
            let shared = Shared64::default();
            shared.store(word);
            shared
        })
    }

    #[test]
    fn only_a_whole_slot_is_read() {
        assert!(read(&slot(0)).is_none(), "free, or being written");
        let packet = read(&slot(7)).expect("it is whole");
        assert_eq!((packet.ns, packet.length, packet.interface, packet.bytes[255]), (7, 60, 3, 9));
    }

    /// All of them take 4 MiB, however many CPUs there are.
    #[test]
    fn the_slots_are_divided() {
        let bytes = |cpus: usize| slots_of_each(cpus) as usize * cpus * size_of::<Slot>();
        for cpus in [1, 2, 64, 256] {
            assert!((4 << 20) - bytes(cpus) < cpus * size_of::<Slot>() + size_of::<Slot>(), "{cpus}");
        }
        assert_eq!(slots_of_each(100_000), 1);
    }
}
