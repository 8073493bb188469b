//! The connections that the kernel has opened by its own count, to hold what the hooks see against it. It
//! covers a network namespace: every interface, loopback included, and every port.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// The most that `/proc/net/snmp` holds, bytes; some 1,500 on Linux 6.18.
const MOST: usize = 16 << 10;

/// Connections opened since the namespace was made, or over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelOpens {
    /// Those that its clients began (`ActiveOpens`).
    pub active: u64,
    /// Those that its listeners took (`PassiveOpens`).
    pub passive: u64,
}

impl KernelOpens {
    /// The increase since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        let [active, passive] =
            [self.active.wrapping_sub(earlier.active), self.passive.wrapping_sub(earlier.passive)];
        Self { active, passive }
    }

    /// How many connections these are at least: one with both ends in the namespace is in both counts.
    #[must_use]
    pub const fn connections(self) -> u64 {
        if self.active > self.passive { self.active } else { self.passive }
    }
}

/// The counters of TCP in a file such as `/proc/net/snmp`: two lines per group, `Tcp: NAME NAME …`, then
/// `Tcp: 1 2 …`. Values that are no counts, such as `MaxConn -1`, are left out.
pub fn tcp_counters(text: &str) -> impl Iterator<Item = (&str, u64)> {
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("Tcp")).collect();
    let pairs: Vec<(&str, &str)> = lines
        .chunks_exact(2)
        .flat_map(|pair| pair[0].split_whitespace().zip(pair[1].split_whitespace()))
        .collect();
    pairs.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?)))
}

/// The file with the counts of this thread's network namespace. It is opened once, so that a reading takes
/// neither a privilege nor a descriptor.
pub(crate) struct OpensFile(File);

impl OpensFile {
    /// `None` where there is no such file.
    pub(crate) fn open() -> Option<Self> {
        File::open("/proc/thread-self/net/snmp").ok().map(Self)
    }

    /// `None` where the counts cannot be read.
    pub(crate) fn read(&self) -> Option<KernelOpens> {
        let mut bytes = vec![0; MOST];
        let length = self.0.read_at(&mut bytes, 0).ok()?;
        parse(std::str::from_utf8(bytes.get(..length)?).ok()?)
    }
}

fn parse(snmp: &str) -> Option<KernelOpens> {
    let of = |wanted| tcp_counters(snmp).find(|(name, _)| *name == wanted).map(|(_, count)| count);
    Some(KernelOpens { active: of("ActiveOpens")?, passive: of("PassiveOpens")? })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::{KernelOpens, OpensFile, parse};

    #[test]
    fn counts_are_found_by_their_names() {
        let snmp =
            "Ip: Forwarding\nIp: 2\nTcp: MaxConn ActiveOpens PassiveOpens\nTcp: -1 7 5\nUdp: A\nUdp: 1\n";
        let opens = parse(snmp).expect("both are there");
        assert_eq!((opens, opens.connections()), (KernelOpens { active: 7, passive: 5 }, 7));
        assert_eq!(opens.since(KernelOpens { active: 6, passive: 1 }).connections(), 4);
        assert_eq!(parse("Tcp: ActiveOpens\nTcp: 7\n"), None);
        assert_eq!(parse(""), None);
    }

    /// The file that was opened before is read anew.
    #[test]
    fn a_connection_is_counted() {
        let file = OpensFile::open().expect("the file is there");
        let before = file.read().expect("it has the counters");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let _stream = TcpStream::connect(listener.local_addr().expect("its address")).expect("it listens");
        let since = file.read().expect("it has the counters").since(before);
        assert!(since.active >= 1 && since.passive >= 1, "{since:?}");
    }
}
