//! What a block has of flows, owners and the run, as words.

use std::collections::BTreeSet;
use std::str::FromStr;

use handshake_common::abi::{COMMAND, ControlGroups, LocalAddress, Maker, Makers, TcpRecord, UdpRecord};
use handshake_common::flow::{Address, Family, FlowKey};
use handshake_common::record::{Clocks, Detail, Now, Record, State};
use handshake_common::verdict::{UdpVerdict, Verdict};

use crate::address::{Cidr, PortRange};
use crate::delta::{Taking, Worded, worded, worded_places};
use crate::model::context::{Beginning, InterfaceHooks, LiveOrigin};
use crate::model::flow::{Flow, FlowEnd, Standing};
use crate::options::Filter;
use crate::owner::{Container, Owner, Pod, PodName, Runtime};

worded_places!(Family, Verdict, UdpVerdict, Runtime);
worded!(Now { ns, jiffies });
worded!(Clocks { half_open_after_ns, expire_after_ns, udp_idle_jiffies, idle_after_jiffies });
worded!(FlowKey { low, high, ports, udp });
worded!(ControlGroups { ids });
worded!(Makers { ends });
worded!(LocalAddress { address, family });
worded!(Record {
    family,
    key,
    state,
    flags,
    service,
    last_jiffies,
    detail,
    reporter,
    control_groups,
    makers
});
worded!(Flow { record, ended });
worded!(FlowEnd { standing, at_ns });
worded!(TcpRecord {
    opened_ns,
    isn_initiator,
    isn_responder,
    other_ack,
    syn_data,
    responder_sent,
    syn_ack_after,
    latest_after,
    ack,
    syn,
    syn_ack,
    syn_ack_retransmits,
    points,
});
worded!(UdpRecord { opened_ns, bytes, packets, answer_after, request_port, reserved, points });
worded!(Owner { cgroup, unit, container, pod });
worded!(Container { id, runtime, name });
worded!(Pod { uid, name });
worded!(PodName { namespace, name });
worded!(Beginning { wall_ns, ns });
worded!(LiveOrigin { interfaces, groups, gone });
worded!(InterfaceHooks { name, ingress, egress, merged, before });
worded!(PortRange { first, last });
worded!(Filter { ports, nets });

/// As numbers of 32 bits, the most significant first; IPv4's is the first.
impl Worded for Address {
    fn put(&self, to: &mut Vec<u64>) {
        for half in self.0.map(u64::from_be) {
            to.extend([half >> 32, half & u64::from(u32::MAX)]);
        }
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        let numbers = <[u32; 4]>::take(from)?;
        Some(Self::v6(numbers))
    }
}

impl Worded for Maker {
    fn put(&self, to: &mut Vec<u64>) {
        let [first, second] = [0, COMMAND / 2]
            .map(|at| u64::from_le_bytes(std::array::from_fn(|byte| self.command[at + byte])));
        to.extend([self.pid, first, second]);
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        let (pid, words) = (from.word()?, [from.word()?, from.word()?]);
        let command = words.map(u64::to_le_bytes).as_flattened().try_into().ok()?;
        Some(Self { pid, command })
    }
}

const _: () = assert!(COMMAND == 2 * size_of::<u64>());

impl Worded for Cidr {
    fn put(&self, to: &mut Vec<u64>) {
        self.to_string().put(to);
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        Self::from_str(&String::take(from)?).ok()
    }
}

impl Worded for State {
    fn put(&self, to: &mut Vec<u64>) {
        to.push(*self as u64);
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        let number = u8::take(from)?;
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }
}

impl Worded for Detail {
    fn put(&self, to: &mut Vec<u64>) {
        match self {
            Self::Tcp(tcp) => {
                to.push(0);
                tcp.put(to);
            }
            Self::Udp(udp) => {
                to.push(1);
                udp.put(to);
            }
        }
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        match from.word()? {
            0 => TcpRecord::take(from).map(Self::Tcp),
            1 => UdpRecord::take(from).map(Self::Udp),
            _ => None,
        }
    }
}

impl Worded for Standing {
    fn put(&self, to: &mut Vec<u64>) {
        match self {
            Self::Tcp(verdict) => {
                to.push(0);
                verdict.put(to);
            }
            Self::Udp(verdict) => {
                to.push(1);
                verdict.put(to);
            }
        }
    }

    fn take(from: &mut Taking<'_>) -> Option<Self> {
        match from.word()? {
            0 => Verdict::take(from).map(Self::Tcp),
            1 => UdpVerdict::take(from).map(Self::Udp),
            _ => None,
        }
    }
}

/// The addresses of a host, in order.
pub(super) fn addresses(all: &BTreeSet<LocalAddress>) -> Vec<LocalAddress> {
    all.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use handshake_common::abi::address_of_group;

    use super::*;
    use crate::delta::Rows;

    /// A file's words are numbers, whatever the order of the machine's memory.
    #[test]
    fn an_address_is_kept_as_numbers() {
        let table = [
            (Address::v4(0x0a00_0001), [0x0a00_0001, 0, 0, 0]),
            (Address::v6([0x2001_0db8, 1, 2, 3]), [0x2001_0db8, 1, 2, 3]),
            (address_of_group(0x0000_0007_0000_0009), [7, 9, 0, 0]),
        ];
        for (address, numbers) in table {
            let mut rows = Rows::default();
            rows.set(0, 0, &address);
            assert_eq!(rows.words(0, 0), Some(&numbers[..]));
            assert_eq!(rows.get(0, 0), Some(address));
        }
    }
}
