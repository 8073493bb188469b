//! The names of EtherTypes that are not IP.

/// A frame of this EtherType in words: `EtherType 0x8909, Cisco MetaData`.
pub(super) fn words(ether_type: u16) -> String {
    /// Below it the field is a length (IEEE 802.3).
    const LEAST: u16 = 0x0600;
    if ether_type < LEAST {
        return "LLC".to_owned();
    }
    match name(ether_type) {
        Some(name) => format!("EtherType {ether_type:#06x}, {name}"),
        None => format!("EtherType {ether_type:#06x}"),
    }
}

/// The names in IEEE's registry, and those that Cisco's devices use without an entry there.
const fn name(ether_type: u16) -> Option<&'static str> {
    Some(match ether_type {
        0x0806 => "ARP",
        0x6558 => "transparent Ethernet bridging",
        0x8035 => "RARP",
        0x8847 | 0x8848 => "MPLS",
        0x8863 | 0x8864 => "PPPoE",
        0x8809 => "slow protocols, LACP",
        0x888e => "EAPOL",
        0x8892 => "PROFINET",
        0x88a2 => "ATA over Ethernet",
        0x88a4 => "EtherCAT",
        0x88b8 => "GOOSE",
        0x88ba => "sampled values",
        0x88cc => "LLDP",
        0x88e5 => "MACsec",
        0x88e7 => "802.1ah",
        0x88f7 => "PTP",
        0x8903 => "Cisco FabricPath",
        0x8906 => "FCoE",
        0x8909 => "Cisco MetaData",
        0x893b => "TRILL",
        0x894f => "network service header",
        _ => return None,
    })
}
