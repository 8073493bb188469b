//! The interfaces that packets come from: those of the file, and those that a Linux cooked capture of all
//! interfaces (`-i any`) names in each packet.

use std::collections::BTreeMap;

use handshake_common::wire::Link;

use crate::record::CaptureInterface;

/// Maximum number of interfaces that are told apart. Packets name any 32-bit index; the limit bounds memory.
const MAX_ORIGINS: usize = 4096;

/// An interface of the file, and the index of the host's interface where the packet has one.
type Origin = (usize, Option<u32>);

/// Numbers the interfaces in the order of their first packets.
#[derive(Default)]
pub(crate) struct Origins {
    numbers: BTreeMap<Origin, usize>,
    /// The names by number.
    names: Vec<Option<String>>,
    /// The origin of the latest packet, with its number.
    latest: Option<(Origin, usize)>,
}

impl Origins {
    /// The number of the interface that the packet `bytes` came from. All interfaces past the limit share one
    /// number.
    pub(crate) fn number(
        &mut self,
        place: usize,
        interface: &CaptureInterface,
        link: Link,
        bytes: &[u8],
    ) -> usize {
        let index = if link == Link::LinuxSll2 { sll2_index(bytes) } else { None };
        let origin = (place, index);
        if let Some((_, number)) = self.latest.filter(|(latest, _)| *latest == origin) {
            return number;
        }
        let number = self.number_of(origin, interface);
        self.latest = Some((origin, number));
        number
    }

    fn number_of(&mut self, origin: Origin, interface: &CaptureInterface) -> usize {
        if let Some(number) = self.numbers.get(&origin) {
            return *number;
        }
        let (number, index) = (self.names.len(), origin.1);
        if number < MAX_ORIGINS {
            self.names.push(index.map_or_else(|| interface.name.clone(), |index| Some(format!("if{index}"))));
            self.numbers.insert(origin, number);
        }
        number
    }

    /// The name of an interface, if it has one.
    pub(crate) fn name(&self, number: usize) -> Option<&str> {
        self.names.get(number)?.as_deref()
    }
}

/// The index of the host's interface: bytes 4 to 7 of the header, counted from 1 (LINKTYPE_LINUX_SLL2).
fn sll2_index(bytes: &[u8]) -> Option<u32> {
    let index = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
    (index != 0).then_some(index)
}
