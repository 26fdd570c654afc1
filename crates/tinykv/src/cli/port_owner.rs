//! Who listens on a port that is taken: the process's id and name, as far as this user may see them.
//!
//! Looks into `/proc`: the socket's inode by address, then the process that has it open. On other systems, or for a
//! process of somebody else, the answer is that nobody knows.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A process that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pid: u32,
    name: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.name)
    }
}

/// The process that listens on `addr`, or on its port on every interface.
pub(super) fn owner(addr: SocketAddr) -> Option<Owner> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, addr))
        .collect();
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    if links.is_empty() {
        return None;
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let has_it = fs::read_dir(process.path().join("fd")).ok()?.flatten().any(|file| {
            fs::read_link(file.path())
                .is_ok_and(|to| to.to_str().is_some_and(|to| links.iter().any(|link| link == to)))
        });
        let name = || {
            fs::read_to_string(process.path().join("comm")).ok().map(|name| name.trim().to_owned())
        };
        has_it.then(|| Owner { pid, name: name().unwrap_or_else(|| "unknown".to_owned()) })
    })
}

/// The inodes of the sockets of a `/proc/net/tcp` table that keep others from listening on `addr`.
fn listening_inodes(table: &str, addr: SocketAddr) -> Vec<String> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            let local = parse_address(local)?;
            let same_host = local.ip() == addr.ip()
                || local.ip().is_unspecified()
                || addr.ip().is_unspecified();
            (*state == LISTEN && local.port() == addr.port() && same_host)
                .then(|| (*inode).to_owned())
        })
        .collect()
}

/// `0100007F:094B`: words of the address in the machine's byte order, the port as a number.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words: Vec<[u8; 4]> = ip
        .as_bytes()
        .chunks(8)
        .map(|word| {
            Some(u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?.to_ne_bytes())
        })
        .collect::<Option<_>>()?;
    let ip: IpAddr = match words.as_slice() {
        [word] => Ipv4Addr::from(*word).into(),
        [_, _, _, _] => Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn listening_sockets_are_found_by_address() {
        let table = format!(
            "{HEADER}   0: 0100007F:094B 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1\n   \
             1: 0100007F:094B 0100007F:8000 01 00000000:00000000 00:00000000 00000000  1000        0 222 1\n   \
             2: 00000000:4EC0 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 333 1\n"
        );
        let inodes = |addr: &str| listening_inodes(&table, addr.parse().unwrap());
        assert_eq!(inodes("127.0.0.1:2379"), ["111"]);
        assert_eq!(inodes("0.0.0.0:2379"), ["111"]);
        assert_eq!(inodes("127.0.0.1:20160"), ["333"]);
        assert!(inodes("127.0.0.2:2379").is_empty() && inodes("127.0.0.1:1").is_empty());
        let loopback = "00000000000000000000000001000000:094B";
        assert_eq!(parse_address(loopback), Some("[::1]:2379".parse().unwrap()));
    }

    #[test]
    fn the_owner_of_our_own_port_is_us() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = owner(listener.local_addr().unwrap()).unwrap();
        assert_eq!(found.pid, std::process::id());
        assert!(!found.name.is_empty());
    }
}
