//! Reads pcapng: sections of blocks, with several interfaces per section (draft-ietf-opsawg-pcapng).

use std::borrow::Cow;

use pcap_parser::{
    EPB_MAGIC, IDB_MAGIC, ISB_MAGIC, OptionCode, PcapNGOption, SHB_MAGIC, SPB_MAGIC,
    parse_enhancedpacketblock_be, parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le, parse_interfacestatisticsblock_be, parse_interfacestatisticsblock_le,
    parse_sectionheaderblock, parse_simplepacketblock_be, parse_simplepacketblock_le, parse_unknownblock_be,
    parse_unknownblock_le, traits::PcapNGPacketBlock,
};

use crate::record::{CaptureInterface, Extent, RawPacket, complete, extent};
use crate::stream::Stop;
use crate::timestamp::Resolution;

/// The obsolete Packet Block, which some files still contain (appendix A of the draft).
const OBSOLETE_PACKET: u32 = 2;
/// An enhanced packet block's count of drops since the interface's packet before (§4.3 of the draft).
const EPB_DROPCOUNT: OptionCode = OptionCode(4);
/// An obsolete packet block's count of drops that is not known.
const UNKNOWN_DROPS: u16 = 0xffff;
/// Offset of the packet in an enhanced and in an obsolete packet block.
const PACKET_AT: usize = 28;
/// Offset of the packet in a simple packet block.
const SIMPLE_PACKET_AT: usize = 12;
/// Maximum number of interfaces in a file. No real capture has more; the limit bounds memory.
const MAX_INTERFACES: usize = 4096;
/// Maximum length of an interface's name, characters.
const MAX_NAME: usize = 128;

const LONG_PACKET: &str = "a packet block whose packet is longer than the block";

/// The byte order of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

/// The reading state: the section's byte order and interfaces, and the interfaces of the whole file.
pub(crate) struct Sections {
    order: ByteOrder,
    /// Number of the current section, counted from 1.
    section: u64,
    /// The section's interfaces, indexed by their number in it.
    local: Vec<Local>,
    /// The interfaces of all sections.
    interfaces: Vec<CaptureInterface>,
    /// For each of `interfaces`, the latest section that describes it.
    described_in: Vec<u64>,
    /// Packets dropped in all sections so far; `None` if they say nothing about drops.
    dropped: Option<u128>,
}

/// A section's description of an interface.
#[derive(Clone, Copy)]
struct Local {
    /// Index into the file's interfaces.
    interface: usize,
    resolution: Resolution,
    /// Maximum captured length, bytes; 0 means no limit.
    snap_length: u32,
    drops: Drops,
}

/// What a section says about packets of an interface that were dropped while capturing: by the interface and
/// by the operating system. Statistics and packets count the same drops.
#[derive(Clone, Copy, Default)]
struct Drops {
    /// Drops since the capture began, by the latest statistics block (`isb_ifdrop` and `isb_osdrop`).
    total: Option<u64>,
    /// Sum of the packets' own counts, each since the packet before (`epb_dropcount`).
    between: Option<u64>,
}

impl Drops {
    /// The larger of the two counts; a writer that keeps only one is believed.
    fn packets(self) -> Option<u64> {
        self.total.max(self.between)
    }

    /// The sum over all interfaces, in which `after` takes the place of these drops.
    fn replaced(self, after: Self, sum: Option<u128>) -> Option<u128> {
        let Some(packets) = after.packets() else { return sum };
        let others = sum.unwrap_or(0).saturating_sub(self.packets().unwrap_or(0).into());
        Some(others.saturating_add(packets.into()))
    }
}

impl Sections {
    /// The state before the first section.
    pub(crate) const fn new() -> Self {
        Self {
            order: ByteOrder::Little,
            section: 0,
            local: Vec::new(),
            interfaces: Vec::new(),
            described_in: Vec::new(),
            dropped: None,
        }
    }

    /// Whether `input` begins with a section header, whose type reads the same in both byte orders.
    pub(crate) fn begin_here(input: &[u8]) -> bool {
        input.starts_with(&SHB_MAGIC.to_le_bytes())
    }

    pub(crate) fn extent(&self, input: &[u8]) -> Result<Extent, Stop> {
        if input.len() < 4 {
            return Ok(Extent::Missing(4 - input.len()));
        }
        if let Some(length) = self.unaligned(input) {
            return Ok(match length.checked_sub(input.len()) {
                Some(more @ 1..) => Extent::Missing(more),
                Some(0) | None => Extent::Whole(length),
            });
        }
        if Self::begin_here(input) {
            return extent(input, parse_sectionheaderblock(input), "an invalid section header");
        }
        let fault = "a block too short for its own header";
        match self.order {
            ByteOrder::Little => extent(input, parse_unknownblock_le(input), fault),
            ByteOrder::Big => extent(input, parse_unknownblock_be(input), fault),
        }
    }

    /// Decodes a complete block. Returns its packet if it has one; a block that describes updates the state
    /// instead.
    pub(crate) fn decode(&mut self, block: &[u8]) -> Result<Option<RawPacket>, Stop> {
        match self.unaligned(block) {
            Some(length) => self.decode_aligned(&self.aligned(block, length)),
            None => self.decode_aligned(block),
        }
    }

    /// The length that a block takes in the file whose own length is no multiple of 4: Wireshark rounds it
    /// up, too. Some writers count the padding of the options out.
    fn unaligned(&self, input: &[u8]) -> Option<usize> {
        const LEAST: usize = 12;
        let order = if Self::begin_here(input) { ByteOrder::of_section(input)? } else { self.order };
        let length = order.u32(input, 4)? as usize;
        (length >= LEAST && !length.is_multiple_of(4)).then(|| length.next_multiple_of(4))
    }

    /// The block with both its lengths rounded up.
    fn aligned(&self, block: &[u8], length: usize) -> Vec<u8> {
        let order = ByteOrder::of_section(block).filter(|_| Self::begin_here(block)).unwrap_or(self.order);
        let mut block = block.to_vec();
        let word = order.bytes(u32::try_from(length).unwrap_or(u32::MAX));
        let behind = block.len() - 4;
        // A wrong second length stays one.
        if block[4..8] == block[behind..] {
            block[behind..].copy_from_slice(&word);
        }
        block[4..8].copy_from_slice(&word);
        block
    }

    fn decode_aligned(&mut self, block: &[u8]) -> Result<Option<RawPacket>, Stop> {
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
            Some(ISB_MAGIC) => {
                self.count_drops(block);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    pub(crate) fn interfaces(&self) -> &[CaptureInterface] {
        &self.interfaces
    }

    /// Packets dropped in all sections so far, by their own statistics.
    pub(crate) fn dropped(&self) -> Option<u64> {
        self.dropped.map(|packets| u64::try_from(packets).unwrap_or(u64::MAX))
    }

    fn begin_section(&mut self, block: &[u8]) -> Result<(), Stop> {
        let header = complete(parse_sectionheaderblock(block), "an invalid section header")?;
        if header.major_version != 1 {
            let (major, minor) = (header.major_version, header.minor_version);
            let reason = format!("a section with the unknown pcapng version {major}.{minor}");
            return Err(Stop::Damaged(Cow::Owned(reason)));
        }
        self.order = if header.big_endian() { ByteOrder::Big } else { ByteOrder::Little };
        self.section += 1;
        self.local.clear();
        Ok(())
    }

    fn describe_interface(&mut self, block: &[u8]) -> Result<(), Stop> {
        let fault = "an invalid interface description";
        let parsed = match self.order {
            ByteOrder::Little => parse_interfacedescriptionblock_le(block),
            ByteOrder::Big => parse_interfacedescriptionblock_be(block),
        };
        let description = complete(parsed, fault)?;
        let option = |code| option(&description.options, code);
        let name = option(OptionCode::IfName).and_then(printable);
        let resolution = option(OptionCode::IfTsresol).and_then(|value| value.first());
        // The parser's own field always assumes little-endian.
        let offset_s = option(OptionCode::IfTsoffset).and_then(|value| self.order.i64(value));
        let link_type = u16::try_from(description.linktype.0).map_err(|_| Stop::damaged(fault))?;
        let interface = self.place(CaptureInterface { name, link_type })?;
        let resolution = Resolution::new(*resolution.unwrap_or(&Resolution::DEFAULT), offset_s.unwrap_or(0));
        let (snap_length, drops) = (description.snaplen, Drops::default());
        self.local.push(Local { interface, resolution, snap_length, drops });
        Ok(())
    }

    /// Takes the drops of a statistics block. Its counts begin with the capture, so the latest block counts.
    /// No packet depends on it, so an invalid one is no damage.
    fn count_drops(&mut self, block: &[u8]) {
        let parsed = match self.order {
            ByteOrder::Little => parse_interfacestatisticsblock_le(block),
            ByteOrder::Big => parse_interfacestatisticsblock_be(block),
        };
        let Ok((_, statistics)) = parsed else { return };
        let order = self.order;
        let Some(local) = self.local.get_mut(statistics.if_id as usize) else { return };
        let count = |code| option(&statistics.options, code).and_then(|value| order.u64(value));
        let total = sum(count(OptionCode::IsbIfDrop), count(OptionCode::IsbOsDrop));
        let before = local.drops;
        local.drops.total = total.or(local.drops.total);
        self.dropped = before.replaced(local.drops, self.dropped);
    }

    /// The interface's number in the file. Sections may stem from concatenated files: equal descriptions in
    /// different sections are one interface, and two equal ones in one section are two.
    fn place(&mut self, interface: CaptureInterface) -> Result<usize, Stop> {
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

    fn enhanced_packet(&mut self, block: &[u8]) -> Result<RawPacket, Stop> {
        let parsed = match self.order {
            ByteOrder::Little => parse_enhancedpacketblock_le(block),
            ByteOrder::Big => parse_enhancedpacketblock_be(block),
        };
        let packet = complete(parsed, LONG_PACKET)?;
        let order = self.order;
        let drops = option(&packet.options, EPB_DROPCOUNT).and_then(|value| order.u64(value));
        let local = self.packet_of(packet.if_id, drops)?;
        let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
        Ok(RawPacket {
            interface: local.interface,
            section: self.section,
            time: Some(local.resolution.nanoseconds(units)),
            data: PACKET_AT..PACKET_AT + packet.packet_data().len(),
            length: packet.origlen,
        })
    }

    /// The layout is that of the enhanced block, except for 16 bits of interface and 16 of drops. The parser
    /// does not support it.
    fn obsolete_packet(&mut self, block: &[u8]) -> Result<RawPacket, Stop> {
        let fault = || Stop::damaged(LONG_PACKET);
        let order = self.order;
        let word = |at| order.u32(block, at).ok_or_else(fault);
        let half = |at| order.u16(block, at).ok_or_else(fault);
        let drops = Some(half(10)?).filter(|drops| *drops != UNKNOWN_DROPS).map(u64::from);
        let local = self.packet_of(u32::from(half(8)?), drops)?;
        let units = u64::from(word(12)?) << 32 | u64::from(word(16)?);
        let (captured, length) = (word(20)? as usize, word(24)?);
        // The block's second length follows the packet.
        if block.len().saturating_sub(PACKET_AT + 4) < captured {
            return Err(fault());
        }
        Ok(RawPacket {
            interface: local.interface,
            section: self.section,
            time: Some(local.resolution.nanoseconds(units)),
            data: PACKET_AT..PACKET_AT + captured,
            length,
        })
    }

    /// Belongs to the section's first interface and has no time. The captured length follows from the snap
    /// length.
    fn simple_packet(&mut self, block: &[u8]) -> Result<RawPacket, Stop> {
        let parsed = match self.order {
            ByteOrder::Little => parse_simplepacketblock_le(block),
            ByteOrder::Big => parse_simplepacketblock_be(block),
        };
        let packet = complete(parsed, "an invalid simple packet block")?;
        let local = self.packet_of(0, None)?;
        let mut captured = packet.packet_data().len();
        if local.snap_length != 0 {
            captured = captured.min(local.snap_length as usize);
        }
        Ok(RawPacket {
            interface: local.interface,
            section: self.section,
            time: None,
            data: SIMPLE_PACKET_AT..SIMPLE_PACKET_AT + captured,
            length: packet.origlen,
        })
    }

    /// The interface of a packet, by its number in the section; `drops` is the packet's own count of drops.
    fn packet_of(&mut self, number: u32, drops: Option<u64>) -> Result<Local, Stop> {
        let local = self.local.get_mut(number as usize).ok_or_else(|| {
            Stop::Damaged(Cow::Owned(format!("a packet from interface {number}, which is not described")))
        })?;
        let before = local.drops;
        local.drops.between = sum(local.drops.between, drops);
        self.dropped = before.replaced(local.drops, self.dropped);
        Ok(*local)
    }
}

impl ByteOrder {
    /// The order of a section header, by its magic number; `None` if that is missing or wrong.
    fn of_section(header: &[u8]) -> Option<Self> {
        match header.get(8..12)? {
            [0x4d, 0x3c, 0x2b, 0x1a] => Some(Self::Little),
            [0x1a, 0x2b, 0x3c, 0x4d] => Some(Self::Big),
            _ => None,
        }
    }

    const fn bytes(self, word: u32) -> [u8; 4] {
        match self {
            Self::Little => word.to_le_bytes(),
            Self::Big => word.to_be_bytes(),
        }
    }

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
        self.u64(bytes).map(u64::cast_signed)
    }

    fn u64(self, bytes: &[u8]) -> Option<u64> {
        let bytes = *bytes.first_chunk()?;
        Some(match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        })
    }
}

/// The sum of the counts that are known; `None` if neither is.
const fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (Some(known), None) | (None, Some(known)) => Some(known),
        (None, None) => None,
    }
}

/// The first value of an option; options after the end marker do not count.
fn option<'a>(options: &'a [PcapNGOption<'_>], code: OptionCode) -> Option<&'a [u8]> {
    let mut options = options.iter().take_while(|option| option.code != OptionCode::EndOfOpt);
    options.find(|option| option.code == code)?.as_bytes().ok()
}

/// The name without control characters, safe to print on a terminal.
fn printable(name: &[u8]) -> Option<String> {
    let name = String::from_utf8_lossy(name);
    let name = name.trim_end_matches('\0').chars().take(MAX_NAME);
    let name: String = name.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    (!name.is_empty()).then_some(name)
}
