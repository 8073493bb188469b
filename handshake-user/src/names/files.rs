//! /etc/hosts (hosts(5)) and /etc/services (services(5)). Pure, apart from reading.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;

use super::shown;

/// Bytes of a file that are read at most.
const MOST_BYTES: u64 = 16 << 20;

/// The text of a file; empty where it cannot be read.
pub(super) fn read(path: &str) -> String {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text));
    read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&text).into_owned())
}

/// The words of each line before its comment.
fn lines(text: &str) -> impl Iterator<Item = std::str::SplitWhitespace<'_>> {
    text.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
}

/// The names of addresses.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<IpAddr, String>);

impl Hosts {
    /// The first name of an address in its first line.
    pub(super) fn parse(text: &str) -> Self {
        let mut hosts = HashMap::new();
        for mut words in lines(text) {
            let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
            if let (Some(address), Some(name)) = (address, words.next()) {
                hosts.entry(address.to_canonical()).or_insert_with(|| shown(name));
            }
        }
        Self(hosts)
    }

    pub(super) fn name(&self, address: IpAddr) -> Option<&str> {
        self.0.get(&address).map(String::as_str)
    }
}

/// The names of ports.
#[derive(Debug, Default)]
pub(super) struct Ports(HashMap<(u16, bool), String>);

impl Ports {
    /// The first name of a port in its first line: `https 443/tcp www-ssl # comment`.
    pub(super) fn parse(text: &str) -> Self {
        let mut ports = HashMap::new();
        for mut words in lines(text) {
            let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
            let Some((number, protocol)) = port.split_once('/') else { continue };
            let udp = match protocol {
                "tcp" => false,
                "udp" => true,
                _ => continue,
            };
            if let Ok(number) = number.parse() {
                ports.entry((number, udp)).or_insert_with(|| shown(name));
            }
        }
        Self(ports)
    }

    pub(super) fn name(&self, port: u16, udp: bool) -> Option<&str> {
        self.0.get(&(port, udp)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read() {
        let text = "127.0.0.1\tlocalhost\n\
            # 10.0.0.9 commented\n\
            10.0.0.2   web.example web www # the server\n\
            10.0.0.2   second.example\n\
            10.0.0.3\n\
            ::1 ip6-localhost ip6-loopback\n\
            ::ffff:10.0.0.4 mapped\n\
            fe80::1%eth0 scoped\n\
            nonsense web\n\
            10.0.0.5 a\u{1b}[2Jb\n";
        let hosts = Hosts::parse(text);
        let name = |address: &str| hosts.name(address.parse().expect(address));
        assert_eq!(name("127.0.0.1"), Some("localhost"));
        assert_eq!(name("10.0.0.2"), Some("web.example"));
        assert_eq!(name("::1"), Some("ip6-localhost"));
        assert_eq!(name("10.0.0.4"), Some("mapped"));
        assert_eq!(name("10.0.0.5"), Some("a\\u{1b}[2Jb"));
        assert_eq!((name("10.0.0.3"), name("10.0.0.9"), name("fe80::1")), (None, None, None));
    }

    #[test]
    fn services_are_read() {
        let text = "# Network services\nssh\t\t22/tcp\nhttps 443/tcp www-ssl # HTTP over TLS\nhttps 443/udp\n\
            www 443/tcp\nsctpd 9/sctp\nbroken 70000/tcp\nalone\ndomain\t53/tcp\ndomain\t53/udp\n";
        let ports = Ports::parse(text);
        let names = |port| [false, true].map(|udp| ports.name(port, udp));
        assert_eq!(names(443), [Some("https"), Some("https")]);
        assert_eq!(names(22), [Some("ssh"), None]);
        assert_eq!(names(53), [Some("domain"), Some("domain")]);
        assert_eq!((names(9), names(4464)), ([None; 2], [None; 2]));
    }
}
