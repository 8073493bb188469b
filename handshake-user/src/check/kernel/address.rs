//! The addresses of our network namespace.

use std::net::IpAddr;

use handshake_agent::attach::interface;

use crate::check::CheckError;

/// The addresses of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses(Vec<IpAddr>);

impl Addresses {
    /// Reads the addresses of this thread's network namespace.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub(crate) fn read() -> Result<Self, CheckError> {
        Ok(Self(interface::addresses()?))
    }

    /// Whether an address belongs to this host.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.0.contains(&address)
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        Self(addresses.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::Addresses;

    #[test]
    fn loopback_addresses_belong_to_this_host_and_documentation_addresses_do_not() {
        let own = Addresses::read().expect("they can be read");
        let has = |address: &str| own.has(address.parse().expect(address));
        assert!(has("127.0.0.1") && has("127.1.2.3") && has("::1"));
        assert!(!has("192.0.2.254") && !has("2001:db8::fe"));
    }
}
