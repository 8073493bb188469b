//! What figures and events are of: the resource and the scope.

use rustix::rand::{GetRandomFlags, getrandom};

use super::messages::{KeyValue, Resource, Scope};

/// The resource and the scope.
pub(super) struct Origin {
    pub(super) resource: Resource,
    pub(super) scope: Scope,
}

impl Origin {
    /// This agent on this node. `attributes` go before what is known anyway; of one that is named twice the
    /// last one counts.
    pub(super) fn new(node: &str, attributes: &[(String, String)]) -> Self {
        let (name, version) = ("handshake".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let known = [
            ("service.name", name.clone()),
            ("service.version", version.clone()),
            ("service.instance.id", uuid()),
            ("host.name", node.to_owned()),
        ];
        let mut all: Vec<(String, String)> = Vec::new();
        let known = known.into_iter().map(|(name, value)| (name.to_owned(), value));
        for (name, value) in known.chain(attributes.iter().cloned()) {
            match all.iter_mut().find(|(each, _)| *each == name) {
                Some((_, known)) => *known = value,
                None => all.push((name, value)),
            }
        }
        let attributes = all.into_iter().map(|(name, value)| KeyValue::text(&name, value)).collect();
        Self { resource: Resource { attributes }, scope: Scope { name, version } }
    }
}

/// A random UUID (RFC 9562, version 4).
fn uuid() -> String {
    let mut bytes = [0_u8; 16];
    // Where there is no randomness yet, it is the UUID of zeros.
    let _ = getrandom(&mut bytes, GetRandomFlags::NONBLOCK);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = u128::from_be_bytes(bytes);
    let part = |from: u32, digits: usize| format!("{:0digits$x}", number >> from & ((1 << (4 * digits)) - 1));
    [part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12)].join("-")
}
