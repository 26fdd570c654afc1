//! What processes cost, and which process serves a port: read from `/proc`.
//!
//! Processor time comes in ticks of 10 ms, which is exact enough over windows of seconds. Everything here is best
//! effort: a process that is gone, on another machine or somebody else's yields `None`, never an error, and the
//! report says that the figure is unknown.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    str::FromStr,
    time::Duration,
};

/// Resources that processes have used or hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Costs {
    /// Processor time, user and system.
    pub(crate) cpu: Duration,
    /// Bytes handed to the disk; `None` where the machine does not tell.
    pub(crate) written_bytes: Option<u64>,
    /// Resident memory.
    pub(crate) resident_bytes: u64,
}

impl Costs {
    /// What was used between two readings. Memory is that of the later one.
    pub(crate) fn between(before: Option<Costs>, after: Option<Costs>) -> Option<Costs> {
        let (before, after) = (before?, after?);
        Some(Costs {
            cpu: after.cpu.saturating_sub(before.cpu),
            written_bytes: Option::zip(before.written_bytes, after.written_bytes)
                .map(|(before, after)| after.saturating_sub(before)),
            resident_bytes: after.resident_bytes,
        })
    }
}

/// Ticks of a second in `/proc`: a constant of the kernel's interface on every architecture of today.
const TICKS_PER_SECOND: u64 = 100;

/// The costs of these processes together; `None` if there are none or one of them cannot be read.
pub(crate) fn costs(pids: &[u32]) -> Option<Costs> {
    let read = |pid, file| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let mut sum = Costs { written_bytes: Some(0), ..Costs::default() };
    for pid in pids {
        let ticks = parse_cpu_ticks(&read(pid, "stat")?)?;
        sum.cpu += Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND);
        sum.resident_bytes += parse_resident_bytes(&read(pid, "status")?)?;
        let written = read(pid, "io").and_then(|io| parse_written_bytes(&io));
        sum.written_bytes =
            Option::zip(sum.written_bytes, written).map(|(sum, written)| sum + written);
    }
    (!pids.is_empty()).then_some(sum)
}

/// User and system time in `/proc/PID/stat`.
fn parse_cpu_ticks(text: &str) -> Option<u64> {
    // The second field is the program's name in parentheses and may contain spaces and parentheses itself.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    // The first of these is field 3 of proc(5): utime is 14, stime 15.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(field(14)? + field(15)?)
}

/// Resident memory in `/proc/PID/status`.
fn parse_resident_bytes(text: &str) -> Option<u64> {
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

fn parse_written_bytes(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

/// Processor time of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MachineTicks {
    total: u64,
    stolen: u64,
}

impl MachineTicks {
    /// Since the machine's start.
    pub(crate) fn read() -> Option<MachineTicks> {
        MachineTicks::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(text: &str) -> Option<MachineTicks> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let fields: Vec<u64> =
            line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest time, behind them, is part of user.
        Some(MachineTicks { total: fields.get(..8)?.iter().sum(), stolen: fields[7] })
    }

    /// How much other virtual machines took between two readings.
    pub(crate) fn steal_percent(
        before: Option<MachineTicks>,
        after: Option<MachineTicks>,
    ) -> Option<f64> {
        let (before, after) = (before?, after?);
        let total = after.total.checked_sub(before.total).filter(|total| *total > 0)?;
        Some(after.stolen.saturating_sub(before.stolen) as f64 / total as f64 * 100.0)
    }
}

/// The process of this machine that listens at `address` (host:port). `None`: another machine, or not to be seen.
/// This process itself is no answer: its costs are the client's.
pub(crate) fn listener(address: &str) -> Option<u32> {
    let address = resolve(address).find(|address| is_local(address.ip()))?;
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|table| listening_inode(&table, address))?;
    let target = format!("socket:[{inode}]");
    let pids = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id()).find(|pid| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == target.as_str())
        })
    })
}

fn resolve(address: &str) -> impl Iterator<Item = SocketAddr> {
    std::net::ToSocketAddrs::to_socket_addrs(address).into_iter().flatten()
}

/// An address is this machine's if a socket can be bound to it.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// Finds the socket that listens at `address`, or at its port on every interface, in the text of `/proc/net/tcp` or
/// `tcp6`.
fn listening_inode(table: &str, address: SocketAddr) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if *fields.get(3)? != LISTEN {
            return None;
        }
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let ip = parse_proc_ip(ip)?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let matches =
            port == address.port() && (ip.is_unspecified() || ip == address.ip().to_canonical());
        matches.then(|| u64::from_str(fields.get(9)?).ok())?
    })
}

/// An address as the kernel prints it: 32-bit words in the machine's byte order.
fn parse_proc_ip(text: &str) -> Option<IpAddr> {
    let words: Option<Vec<u32>> = (0..text.len() / 8)
        .map(|word| {
            Some(u32::from_be(u32::from_str_radix(text.get(word * 8..word * 8 + 8)?, 16).ok()?))
        })
        .collect();
    match words?[..] {
        [word] => Some(IpAddr::V4(word.into())),
        [a, b, c, d] => {
            let bits = [a, b, c, d].into_iter().fold(0, |bits, word| bits << 32 | u128::from(word));
            Some(IpAddr::V6(Ipv6Addr::from(bits)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn stat_survives_strange_program_names() {
        let tail = "S 1 1 1 0 -1 4194560 500 0 3 0 120 34 0 0 20 0 9 0 100 1000000 4096 18446744073709551615 1";
        for name in ["etcd", "a b", "x) R (y"] {
            assert_eq!(parse_cpu_ticks(&format!("4242 ({name}) {tail}")), Some(154));
        }
        assert_eq!(parse_cpu_ticks("4242 (cut"), None);
        assert_eq!(parse_cpu_ticks("4242 (cut) S 1 2"), None);
    }

    #[test]
    fn resident_memory_is_in_kib() {
        let status = "Name:\tetcd\nVmHWM:\t   99 kB\nVmRSS:\t   12 kB\nThreads:\t9\n";
        assert_eq!(parse_resident_bytes(status), Some(12 << 10));
        assert_eq!(parse_resident_bytes("Name:\tkthread\n"), None);
    }

    #[test]
    fn written_bytes_are_those_that_reached_the_disk() {
        let io = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 678\ncancelled_write_bytes: 9\n";
        assert_eq!(parse_written_bytes(io), Some(678));
        assert_eq!(parse_written_bytes(""), None);
    }

    #[test]
    fn steal_is_a_share_of_all_processors() {
        let before =
            MachineTicks::parse("cpu  100 0 100 800 0 0 0 10 50 0\ncpu0 1 2 3 4 5 6 7 8\n");
        let after = MachineTicks::parse("cpu  150 0 130 900 5 5 0 20 70 0\n");
        assert_eq!(before, Some(MachineTicks { total: 1_010, stolen: 10 }));
        assert_eq!(MachineTicks::steal_percent(before, after), Some(5.0));
        assert_eq!(MachineTicks::steal_percent(before, before), None);
        assert_eq!(MachineTicks::parse("cpu  1 2 3\n"), None);
    }

    #[test]
    fn listening_sockets_are_found_by_address_and_by_wildcard() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:4EC0 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1000 0 111 1 0 100 0 0 10 0\n\
            1: 0100007F:4EC0 0100007F:9999 01 00000000:00000000 00:00000000 00000000 1000 0 222 1 0 100 0 0 10 0\n\
            2: 00000000:094B 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1000 0 333 1 0 100 0 0 10 0\n";
        let inode = |address: &str| listening_inode(table, address.parse().unwrap());
        assert_eq!(inode("127.0.0.1:20160"), Some(111));
        assert_eq!(inode("127.0.0.2:20160"), None);
        assert_eq!(inode("127.0.0.2:2379"), Some(333));
        assert_eq!(inode("127.0.0.1:39321"), None, "a remote port is not listening");
    }

    #[test]
    fn addresses_of_the_kernel_are_words_in_machine_order() {
        assert_eq!(parse_proc_ip("0100007F"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(parse_proc_ip("00000000000000000000000001000000"), Some("::1".parse().unwrap()));
        assert_eq!(
            parse_proc_ip("0000000000000000FFFF00000100007F"),
            Some("127.0.0.1".parse().unwrap())
        );
        assert_eq!(parse_proc_ip("01"), None);
    }

    #[test]
    fn this_process_can_be_read_and_is_nobodys_server() {
        let own = costs(&[std::process::id()]).unwrap();
        assert!(own.resident_bytes > 100_000);
        assert_eq!(costs(&[]), None);
        assert_eq!(costs(&[u32::MAX]), None);
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listener(&listening.local_addr().unwrap().to_string()), None);
    }

    #[test]
    fn costs_are_differences_and_memory_is_the_last() {
        let reading = |cpu, written, resident_bytes| {
            Some(Costs { cpu: Duration::from_millis(cpu), written_bytes: written, resident_bytes })
        };
        let expected = reading(50, Some(900), 7);
        assert_eq!(
            Costs::between(reading(100, Some(100), 9), reading(150, Some(1_000), 7)),
            expected
        );
        assert_eq!(
            Costs::between(reading(100, None, 9), reading(150, Some(1), 7)),
            reading(50, None, 7)
        );
        assert_eq!(Costs::between(None, expected), None);
    }
}
