//! Options of `handshake why`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use clap::Args;
use clap::builder::BoolishValueParser;
use handshake_agent::address::{Cidr, PortRange};
use handshake_agent::options::Options;

use super::ScopeArgs;
use crate::report::OutputFormat;

/// Options of `handshake why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The service: :PORT, ADDRESS or ADDRESS:PORT [default: the one that fails most]
    #[arg(value_name = "SERVICE")]
    pub(crate) target: Option<WhyTarget>,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    /// text or json
    #[arg(short = 'o', long = "output", value_enum, default_value_t = OutputFormat::Text)]
    #[arg(value_name = "FORMAT", env = "HANDSHAKE_OUTPUT", hide_env = true, help_heading = None::<&str>)]
    pub(crate) format: OutputFormat,
    /// Show the service's name too: by /etc/hosts and /etc/services, then ask this machine's name servers
    #[arg(long, env = "HANDSHAKE_NAMES", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(help_heading = None::<&str>)]
    pub(crate) names: bool,
}

/// The service that `why` is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WhyTarget {
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl WhyTarget {
    fn at(address: Option<IpAddr>, port: u16) -> Result<Self, String> {
        if port == 0 {
            Err("0 is no port of a service".to_owned())
        } else {
            Ok(Self { address, port: Some(port) })
        }
    }
}

impl FromStr for WhyTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Self::at(Some(socket.ip()), socket.port());
        }
        // An IPv6 address is written in brackets where a port may follow it.
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let bare = bare.map(|text| text.parse::<Ipv6Addr>().map(IpAddr::from));
        if let Ok(address) = bare.unwrap_or_else(|| text.parse()) {
            return Ok(Self { address: Some(address), port: None });
        }
        let port = text.strip_prefix(':').unwrap_or(text).parse();
        let port =
            port.map_err(|_| "not a service such as :443, 10.0.0.2 or [2001:db8::2]:443".to_owned())?;
        Self::at(None, port)
    }
}

impl fmt::Display for WhyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.port) {
            (Some(address), Some(port)) => SocketAddr::new(address, port).fmt(f),
            (Some(address), None) => address.fmt(f),
            (None, port) => write!(f, ":{}", port.unwrap_or_default()),
        }
    }
}

impl WhyArgs {
    /// The agent's options.
    pub(crate) fn watched(&self) -> Options {
        let mut options = Options::from(&self.scope);
        if let Some(target) = self.target {
            options.filter.ports.extend(target.port.map(PortRange::one));
            options.filter.nets.extend(target.address.map(Cidr::host));
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::WhyTarget;

    #[test]
    fn a_service_is_named_in_any_usual_way() {
        for (text, shown) in [
            (":443", ":443"),
            ("443", ":443"),
            ("10.0.0.2", "10.0.0.2"),
            ("10.0.0.2:443", "10.0.0.2:443"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[::1]:443", "[::1]:443"),
        ] {
            assert_eq!(
                text.parse::<WhyTarget>().map(|target| target.to_string()),
                Ok(shown.to_owned()),
                "{text}"
            );
        }
        for text in ["[10.0.0.2]", "[::1", "::1]", "[]", "443]", "a", "", "0", "[::1]:0"] {
            assert!(text.parse::<WhyTarget>().is_err(), "{text}");
        }
    }
}
