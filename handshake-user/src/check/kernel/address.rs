//! The addresses of the network namespace we are in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

use crate::check::CheckError;

/// Addresses that this host answers at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses(Vec<IpAddr>);

impl Addresses {
    /// Of this thread's network namespace.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn read() -> Result<Self, CheckError> {
        let mut first: *mut libc::ifaddrs = ptr::null_mut();
        // SAFETY: the call writes one pointer, to memory of ours.
        if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
            return Err(CheckError::system("list the addresses")(io::Error::last_os_error()));
        }
        let mut all = Vec::new();
        let mut next = first;
        while !next.is_null() {
            // SAFETY: the list is the call's own, ends with a null pointer, and is freed below only.
            let entry = unsafe { &*next };
            all.extend(address(entry.ifa_addr));
            next = entry.ifa_next;
        }
        // SAFETY: it came from getifaddrs, and nothing refers to it any more.
        unsafe { libc::freeifaddrs(first) };
        Ok(Self(all))
    }

    /// Whether an address is one of this host.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.0.contains(&address)
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        Self(addresses.into_iter().collect())
    }
}

/// The IP address of a socket address, when it is one.
fn address(socket: *const libc::sockaddr) -> Option<IpAddr> {
    if socket.is_null() {
        return None;
    }
    // SAFETY: it is not null, and every socket address begins with its family.
    match i32::from(unsafe { (*socket).sa_family }) {
        libc::AF_INET => {
            // SAFETY: the family says that this is what it is; the kernel's library aligns it.
            let v4 = unsafe { &*socket.cast::<libc::sockaddr_in>() };
            Some(Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*socket.cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Addresses;

    #[test]
    fn loopback_is_always_ours_and_documentation_never() {
        let own = Addresses::read().expect("they can be read");
        let has = |address: &str| own.has(address.parse().expect(address));
        assert!(has("127.0.0.1") && has("127.1.2.3") && has("::1"));
        assert!(!has("192.0.2.254") && !has("2001:db8::fe"));
    }
}
