//! A pcapng file (draft-ietf-opsawg-pcapng) with what evidence needs of it: one section, its interfaces, and
//! packets with a comment and a direction. Times are to the nanosecond, numbers in little-endian order. Pure.

/// Ethernet, and packets that begin at the IP header.
const ETHERNET: u16 = 1;
const RAW: u16 = 101;
/// Types of blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// Options, by the block that they are in.
const COMMENT: u16 = 1;
const FLAGS: u16 = 2;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const USER_APPLICATION: u16 = 4;
/// The longest option.
const LONGEST: usize = u16::MAX as usize;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaptureInterface {
    /// Its name; unknown where it is gone.
    pub(crate) name: Option<String>,
    /// Whether its packets begin at the IP header.
    pub(crate) is_raw: bool,
}

/// A packet.
#[derive(Clone, Debug)]
pub(crate) struct CapturePacket<'a> {
    /// The place of its interface.
    pub(crate) interface: usize,
    /// When it was seen, ns since the Unix epoch.
    pub(crate) wall_ns: u64,
    /// Its first bytes.
    pub(crate) bytes: &'a [u8],
    /// How many it had.
    pub(crate) length: u32,
    /// Whether it went out, and did not come in.
    pub(crate) is_outgoing: bool,
    /// What is said of it.
    pub(crate) comment: String,
}

/// Writes a file.
pub(crate) fn write(
    program: &str,
    comment: &str,
    interfaces: &[CaptureInterface],
    packets: &[CapturePacket<'_>],
) -> Vec<u8> {
    let mut file = Vec::new();
    let mut section = Vec::new();
    section.extend(0x1a2b_3c4d_u32.to_le_bytes());
    section.extend([1_u16, 0].map(u16::to_le_bytes).concat());
    // The length of the section is not told.
    section.extend(u64::MAX.to_le_bytes());
    option(&mut section, COMMENT, comment.as_bytes());
    option(&mut section, USER_APPLICATION, program.as_bytes());
    block(&mut file, SECTION, section);
    for interface in interfaces {
        let mut body = Vec::new();
        body.extend((if interface.is_raw { RAW } else { ETHERNET }).to_le_bytes());
        body.extend([0; 2]);
        // No limit: packets are cut to their headers.
        body.extend(0_u32.to_le_bytes());
        interface.name.iter().for_each(|name| option(&mut body, IF_NAME, name.as_bytes()));
        option(&mut body, IF_TSRESOL, &[9]);
        block(&mut file, INTERFACE, body);
    }
    for packet in packets {
        let mut body = Vec::new();
        let [high, low] = [packet.wall_ns >> 32, packet.wall_ns & u64::from(u32::MAX)];
        let captured = packet.bytes.len() as u64;
        for number in [packet.interface as u64, high, low, captured, u64::from(packet.length)] {
            body.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
        body.extend(packet.bytes);
        pad(&mut body);
        option(&mut body, COMMENT, packet.comment.as_bytes());
        let direction = if packet.is_outgoing { 2_u32 } else { 1 };
        option(&mut body, FLAGS, &direction.to_le_bytes());
        block(&mut file, PACKET, body);
    }
    file
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(LONGEST)];
    body.extend(code.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    body.extend(value);
    pad(body);
}

/// Adds a block, whose options end with it.
fn block(file: &mut Vec<u8>, kind: u32, mut body: Vec<u8>) {
    // The end of the options.
    body.extend([0; 4]);
    let length = u32::try_from(body.len() + 12).unwrap_or(u32::MAX).to_le_bytes();
    file.extend(kind.to_le_bytes());
    file.extend(length);
    file.extend(body);
    file.extend(length);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}
