//! `HOST:PORT`: what listeners bind and what others dial.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// A host (name, IPv4 or IPv6 address) and a port. Not resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Without the brackets of IPv6.
    pub host: String,
    /// 0: a free one, chosen when listening.
    pub port: u16,
}

impl Address {
    /// Whether the host means "every interface" to a listener, and thereby nothing to a client.
    pub fn is_wildcard(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }

    /// Whether only this machine can dial it. A name other than `localhost` counts as reachable.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.ip().is_some_and(|ip| ip.is_loopback())
    }

    /// The same host with another port.
    pub fn with_port(&self, port: u16) -> Address {
        Address { host: self.host.clone(), port }
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// The address of store `nth` (from 0) where `addr` is that of the first: as many ports further. Port 0 and what is no
/// address stay as they are.
pub(crate) fn nth(addr: &str, nth: usize) -> String {
    let Ok(first) = addr.parse::<Address>() else { return addr.to_owned() };
    match u16::try_from(nth).ok().and_then(|nth| first.port.checked_add(nth)) {
        Some(port) if first.port != 0 && 0 < nth => first.with_port(port).to_string(),
        _ => addr.to_owned(),
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Address {
        Address { host: addr.ip().to_string(), port: addr.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let wrong = || format!("takes HOST:PORT, not \"{text}\"");
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(wrong()),
            // A bare IPv6 address with a port cannot be told from one without.
            None if host.is_empty() || host.contains([':', '/', ' ']) => return Err(wrong()),
            None => host,
        };
        Ok(Address { host: host.to_owned(), port })
    }
}

/// What others dial, given the setting (`advertise-addr`) and the address that was bound: the setting if there is
/// one, with the bound port in place of port 0. A wildcard becomes the loopback address: nobody else could dial it.
pub fn advertised(configured: &str, bound: SocketAddr) -> String {
    let address = configured.parse().unwrap_or_else(|_| Address::from(bound));
    let port = if address.port == 0 { bound.port() } else { address.port };
    if address.is_wildcard() {
        let loopback: IpAddr = if address.host.contains(':') {
            Ipv6Addr::LOCALHOST.into()
        } else {
            Ipv4Addr::LOCALHOST.into()
        };
        return SocketAddr::new(loopback, port).to_string();
    }
    address.with_port(port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_the_same() {
        for text in [
            "127.0.0.1:20160",
            "localhost:0",
            "store-1.example.com:80",
            "[::1]:2379",
            "0.0.0.0:65535",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "2379",
            ":2379",
            "host",
            "host:",
            "host:x",
            "host:65536",
            "::1:2379",
            "[::1:2379",
            "http://h:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn wildcards_and_loopbacks_are_recognised() {
        let address = |text: &str| text.parse::<Address>().unwrap();
        assert!(address("0.0.0.0:1").is_wildcard() && address("[::]:1").is_wildcard());
        assert!(!address("10.0.0.1:1").is_wildcard() && !address("name:1").is_wildcard());
        assert!(address("127.0.0.2:1").is_loopback() && address("[::1]:1").is_loopback());
        assert!(address("localhost:1").is_loopback() && !address("name:1").is_loopback());
    }

    #[test]
    fn the_advertised_address_can_be_dialled() {
        let bound = "127.0.0.1:4321".parse().unwrap();
        assert_eq!(advertised("", bound), "127.0.0.1:4321");
        assert_eq!(advertised("10.0.0.5:20160", bound), "10.0.0.5:20160");
        assert_eq!(advertised("10.0.0.5:0", bound), "10.0.0.5:4321");
        assert_eq!(advertised("", "0.0.0.0:77".parse().unwrap()), "127.0.0.1:77");
        assert_eq!(advertised("", "[::]:77".parse().unwrap()), "[::1]:77");
    }
}
