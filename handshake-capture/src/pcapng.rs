//! pcapng: sections of blocks, several interfaces in each (draft-ietf-opsawg-pcapng).

use std::borrow::Cow;

use pcap_parser::{
    EPB_MAGIC, IDB_MAGIC, OptionCode, PcapNGOption, SHB_MAGIC, SPB_MAGIC, parse_enhancedpacketblock_be,
    parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be, parse_interfacedescriptionblock_le,
    parse_sectionheaderblock, parse_simplepacketblock_be, parse_simplepacketblock_le, parse_unknownblock_be,
    parse_unknownblock_le, traits::PcapNGPacketBlock,
};

use crate::record::{Extent, Interface, Packet, complete, extent};
use crate::stream::Stop;
use crate::timestamp::Resolution;

/// The Packet Block, obsolete and still met (appendix A of the draft).
const OBSOLETE_PACKET: u32 = 2;
/// Where the packet begins in an enhanced and in an obsolete packet block.
const PACKET_AT: usize = 28;
/// Where the packet begins in a simple packet block.
const SIMPLE_PACKET_AT: usize = 12;
/// Interfaces of a file at most: more is no real machine's capture, but memory spent for nothing.
const MAX_INTERFACES: usize = 4096;
/// Characters kept of an interface's name.
const MAX_NAME: usize = 128;

const LONG_PACKET: &str = "a packet block whose packet is longer than the block";

/// The order of a section's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

/// Where reading stands: the section's byte order, its interfaces, and those of the whole file.
pub(crate) struct Sections {
    order: Order,
    /// Counts the sections.
    section: u64,
    /// The section's interfaces by their number in it.
    local: Vec<Local>,
    /// The file's interfaces.
    interfaces: Vec<Interface>,
    /// The section that described each of `interfaces` last.
    described_in: Vec<u64>,
}

/// What a section says of an interface.
#[derive(Clone, Copy)]
struct Local {
    /// Index into the file's interfaces.
    interface: usize,
    resolution: Resolution,
    /// 0: no limit.
    snap_length: u32,
}

impl Sections {
    /// Before the first section.
    pub(crate) const fn new() -> Self {
        Self {
            order: Order::Little,
            section: 0,
            local: Vec::new(),
            interfaces: Vec::new(),
            described_in: Vec::new(),
        }
    }

    /// Whether a section header begins `input`: its type reads the same in both byte orders.
    pub(crate) fn begin_here(input: &[u8]) -> bool {
        input.starts_with(&SHB_MAGIC.to_le_bytes())
    }

    pub(crate) fn extent(&self, input: &[u8]) -> Result<Extent, Stop> {
        if input.len() < 4 {
            return Ok(Extent::Missing(4 - input.len()));
        }
        if Self::begin_here(input) {
            return extent(input, parse_sectionheaderblock(input), "a section header that cannot be");
        }
        let fault = "a block too short for its own header";
        match self.order {
            Order::Little => extent(input, parse_unknownblock_le(input), fault),
            Order::Big => extent(input, parse_unknownblock_be(input), fault),
        }
    }

    /// The packet in a whole block, if there is one; a block that describes changes what is known instead.
    pub(crate) fn decode(&mut self, block: &[u8]) -> Result<Option<Packet>, Stop> {
        if Self::begin_here(block) {
            self.begin_section(block)?;
        }
        if self.order.u32(block, 4) != self.order.u32(block, block.len() - 4) {
            return Err(Stop::damaged("a block whose two lengths differ"));
        }
        match self.order.u32(block, 0) {
            Some(IDB_MAGIC) => self.describe_interface(block).map(|()| None),
            Some(EPB_MAGIC) => self.enhanced_packet(block).map(Some),
            Some(SPB_MAGIC) => self.simple_packet(block).map(Some),
            Some(OBSOLETE_PACKET) => self.obsolete_packet(block).map(Some),
            _ => Ok(None),
        }
    }

    pub(crate) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    fn begin_section(&mut self, block: &[u8]) -> Result<(), Stop> {
        let header = complete(parse_sectionheaderblock(block), "a section header that cannot be")?;
        if header.major_version != 1 {
            let (major, minor) = (header.major_version, header.minor_version);
            let reason = format!("a section of the unknown pcapng version {major}.{minor}");
            return Err(Stop::Damaged(Cow::Owned(reason)));
        }
        self.order = if header.big_endian() { Order::Big } else { Order::Little };
        self.section += 1;
        self.local.clear();
        Ok(())
    }

    fn describe_interface(&mut self, block: &[u8]) -> Result<(), Stop> {
        let fault = "an interface description that cannot be";
        let parsed = match self.order {
            Order::Little => parse_interfacedescriptionblock_le(block),
            Order::Big => parse_interfacedescriptionblock_be(block),
        };
        let description = complete(parsed, fault)?;
        let option = |code| option(&description.options, code);
        let name = option(OptionCode::IfName).and_then(printable);
        let resolution = option(OptionCode::IfTsresol).and_then(|value| value.first());
        // Not the parser's own field: it takes the value for little-endian always.
        let offset_s = option(OptionCode::IfTsoffset).and_then(|value| self.order.i64(value));
        let link_type = u16::try_from(description.linktype.0).map_err(|_| Stop::damaged(fault))?;
        let interface = self.place(Interface { name, link_type })?;
        let resolution = Resolution::new(*resolution.unwrap_or(&Resolution::DEFAULT), offset_s.unwrap_or(0));
        self.local.push(Local { interface, resolution, snap_length: description.snaplen });
        Ok(())
    }

    /// The interface's number in the file. Sections one after the other are files put together: what
    /// they describe alike is one interface, but two of one section are two.
    fn place(&mut self, interface: Interface) -> Result<usize, Stop> {
        let described = self.interfaces.iter().zip(&mut self.described_in);
        let mut known = described.enumerate().filter(|(_, (_, section))| **section != self.section);
        if let Some((place, (_, section))) = known.find(|(_, (known, _))| **known == interface) {
            *section = self.section;
            return Ok(place);
        }
        if self.interfaces.len() == MAX_INTERFACES {
            return Err(Stop::Damaged(Cow::Owned(format!("more than {MAX_INTERFACES} interfaces"))));
        }
        self.interfaces.push(interface);
        self.described_in.push(self.section);
        Ok(self.interfaces.len() - 1)
    }

    fn enhanced_packet(&self, block: &[u8]) -> Result<Packet, Stop> {
        let parsed = match self.order {
            Order::Little => parse_enhancedpacketblock_le(block),
            Order::Big => parse_enhancedpacketblock_be(block),
        };
        let packet = complete(parsed, LONG_PACKET)?;
        let local = self.local(packet.if_id)?;
        let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
        Ok(Packet {
            interface: local.interface,
            time: Some(local.resolution.nanoseconds(units)),
            data: PACKET_AT..PACKET_AT + packet.packet_data().len(),
            length: packet.origlen,
        })
    }

    /// Laid out as the enhanced one, but for 16 bits of interface and 16 of drops. The parser does not know it.
    fn obsolete_packet(&self, block: &[u8]) -> Result<Packet, Stop> {
        let fault = || Stop::damaged(LONG_PACKET);
        let word = |at| self.order.u32(block, at).ok_or_else(fault);
        let local = self.local(u32::from(self.order.u16(block, 8).ok_or_else(fault)?))?;
        let units = u64::from(word(12)?) << 32 | u64::from(word(16)?);
        let (captured, length) = (word(20)? as usize, word(24)?);
        // Behind the packet, the block's second length.
        if block.len().saturating_sub(PACKET_AT + 4) < captured {
            return Err(fault());
        }
        Ok(Packet {
            interface: local.interface,
            time: Some(local.resolution.nanoseconds(units)),
            data: PACKET_AT..PACKET_AT + captured,
            length,
        })
    }

    /// Of the section's first interface, and without a time. How much was captured follows from the snap length.
    fn simple_packet(&self, block: &[u8]) -> Result<Packet, Stop> {
        let parsed = match self.order {
            Order::Little => parse_simplepacketblock_le(block),
            Order::Big => parse_simplepacketblock_be(block),
        };
        let packet = complete(parsed, "a simple packet block that cannot be")?;
        let local = self.local(0)?;
        let mut captured = packet.packet_data().len();
        if local.snap_length != 0 {
            captured = captured.min(local.snap_length as usize);
        }
        Ok(Packet {
            interface: local.interface,
            time: None,
            data: SIMPLE_PACKET_AT..SIMPLE_PACKET_AT + captured,
            length: packet.origlen,
        })
    }

    fn local(&self, number: u32) -> Result<Local, Stop> {
        self.local.get(number as usize).copied().ok_or_else(|| {
            Stop::Damaged(Cow::Owned(format!("a packet of interface {number}, which is not described")))
        })
    }
}

impl Order {
    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        })
    }

    fn i64(self, bytes: &[u8]) -> Option<i64> {
        let bytes = *bytes.first_chunk()?;
        Some(match self {
            Self::Little => i64::from_le_bytes(bytes),
            Self::Big => i64::from_be_bytes(bytes),
        })
    }
}

/// The first value of an option before the end of the options.
fn option<'a>(options: &'a [PcapNGOption<'_>], code: OptionCode) -> Option<&'a [u8]> {
    let mut options = options.iter().take_while(|option| option.code != OptionCode::EndOfOpt);
    options.find(|option| option.code == code)?.as_bytes().ok()
}

/// A name as it may go to a terminal.
fn printable(name: &[u8]) -> Option<String> {
    let name = String::from_utf8_lossy(name);
    let name = name.trim_end_matches('\0').chars().take(MAX_NAME);
    let name: String = name.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    (!name.is_empty()).then_some(name)
}
