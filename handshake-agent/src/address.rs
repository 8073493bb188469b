//! Ports, ends and address prefixes: their text, and the form that records and the kernel side have. Pure.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use handshake_common::abi::Net;
use handshake_common::flow::Address;
use ipnet::IpNet;

/// A port, or several in a row; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The smallest.
    pub first: u16,
    /// The largest.
    pub last: u16,
}

impl PortRange {
    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |word: &str| word.parse().map_err(|_| format!("'{word}' is no port (0 to 65535)"));
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: port(first)?, last: port(last)? };
        if range.first > range.last { Err("the range ends before it begins".to_owned()) } else { Ok(range) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// An address prefix. Bits of the address past the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(IpNet);

impl Cidr {
    /// The network of an address, by the length of its prefix: at most the address whole.
    #[must_use]
    pub fn of(address: IpAddr, length: u8) -> Self {
        Self(IpNet::new(address, length).unwrap_or_else(|_| address.into()).trunc())
    }

    /// The filter as the kernel side reads it.
    pub fn net(self) -> Net {
        let (address, family) = Address::of(self.0.addr());
        Net { address, mask: Address::of(self.0.netmask()).0, family: family as u64 }
    }

    /// Whether an address has this prefix.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl Cidr {
    /// One address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self(address.into())
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| format!("'{address}' is no IP address"))?;
        let whole = IpNet::from(address);
        let Some(prefix) = prefix else { return Ok(Self(whole)) };
        let prefix: u8 = prefix.parse().map_err(|_| format!("'{prefix}' is no prefix length"))?;
        let net = IpNet::new(address, prefix).map_err(|_| {
            format!("a prefix of {prefix} is longer than the address ({})", whole.max_prefix_len())
        })?;
        Ok(Self(net.trunc()))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One end of conversations, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    one: SocketAddr,
    other: Option<SocketAddr>,
}

impl Ends {
    /// Whether a conversation between these two has the ends, in either order.
    #[must_use]
    pub fn are_of(self, [from, to]: [SocketAddr; 2]) -> bool {
        match self.other {
            Some(other) => [from, to] == [self.one, other] || [to, from] == [self.one, other],
            None => [from, to].contains(&self.one),
        }
    }
}

impl FromStr for Ends {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let end = |word: &str| {
            word.trim().parse().map_err(|_| {
                format!("'{word}' is no address with a port, such as 10.0.0.1:443 or [2001:db8::1]:443")
            })
        };
        let (one, other) = text.split_once(',').map_or((text, None), |(one, other)| (one, Some(other)));
        Ok(Self { one: end(one)?, other: other.map(end).transpose()? })
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.other {
            Some(other) => write!(f, "{} and {other}", self.one),
            None => self.one.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use handshake_common::flow::Address;

    use super::{Cidr, Ends, PortRange};

    #[test]
    fn ports_are_one_or_a_range() {
        assert_eq!("443".parse(), Ok(PortRange { first: 443, last: 443 }));
        assert_eq!("8000-8100".parse(), Ok(PortRange { first: 8000, last: 8100 }));
        for text in ["", "65536", "9-8", "1-", "-1", "https", "1-2-3"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn ends_fit_in_either_order() {
        let [a, b, c] = ["10.0.0.1:1", "[2001:db8::1]:2", "10.0.0.1:2"].map(|end| end.parse().expect(end));
        let one: Ends = "10.0.0.1:1".parse().expect("an end");
        assert!(one.are_of([a, b]) && one.are_of([c, a]) && !one.are_of([b, c]));
        let both: Ends = "10.0.0.1:1,[2001:db8::1]:2".parse().expect("two ends");
        assert!(both.are_of([a, b]) && both.are_of([b, a]) && !both.are_of([a, c]) && !both.are_of([b, c]));
        for text in
            ["", "10.0.0.1", ":443", "10.0.0.1:1,", "2001:db8::1:2", "10.0.0.1:1,10.0.0.1:2,10.0.0.1:3"]
        {
            assert!(text.parse::<Ends>().is_err(), "{text}");
        }
    }

    #[test]
    fn prefixes_are_masked_and_whole_addresses_are_the_longest() {
        let table = [
            ("10.1.2.3/8", "10.0.0.0/8", Address::v4(0x0a00_0000), Address::v4(0xff00_0000), 1),
            ("10.1.2.3", "10.1.2.3/32", Address::v4(0x0a01_0203), Address::v4(u32::MAX), 1),
            ("0.0.0.0/0", "0.0.0.0/0", Address::default(), Address::default(), 1),
            (
                "2001:db8::1/33",
                "2001:db8::/33",
                Address::v6([0x2001_0db8, 0, 0, 0]),
                Address::v6([u32::MAX, 1 << 31, 0, 0]),
                2,
            ),
            ("::1", "::1/128", Address::v6([0, 0, 0, 1]), Address::v6([u32::MAX; 4]), 2),
        ];
        for (text, shown, address, mask, family) in table {
            let cidr: Cidr = text.parse().expect(text);
            assert_eq!(cidr.to_string(), shown);
            let net = cidr.net();
            assert_eq!((net.address, net.mask, net.family), (address, mask, family), "{text}");
        }
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "host/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_contains_its_addresses_only() {
        let table = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.2", "10.0.0.2", true),
            ("0.0.0.0/0", "::", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ];
        for (prefix, address, expected) in table {
            let cidr: Cidr = prefix.parse().expect(prefix);
            assert_eq!(cidr.contains(address.parse().expect(address)), expected, "{prefix} {address}");
        }
    }
}
