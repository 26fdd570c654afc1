//! Facts of the machine that defaults depend on: memory, the address that others reach it by, processors.
//!
//! [`Machine::detect`] is the only place of the configuration that looks at the machine; everything else takes a
//! [`Machine`] as input. A fact that can't be found out is absent, never an error.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    num::NonZero,
    path::{Path, PathBuf},
};

use super::ByteSize;

/// What is known of this machine. The default knows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Memory that this process may use.
    pub memory: Option<ByteSize>,
    /// Whether `memory` is the limit of a control group, not all of the machine's.
    pub is_memory_limited: bool,
    /// The address of the default route: what other machines most likely reach this one by.
    pub address: Option<IpAddr>,
    /// The machine's name.
    pub hostname: Option<String>,
    /// Processors that this process may use; 0 if unknown.
    pub processors: usize,
}

impl Machine {
    /// Looks at the machine. Takes well under a millisecond and sends nothing.
    pub fn detect() -> Machine {
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        let (memory, is_memory_limited) = usable_memory(read);
        Machine {
            memory,
            is_memory_limited,
            address: route_address(),
            hostname: read(Path::new("/proc/sys/kernel/hostname"))
                .map(|name| name.trim().to_owned()),
            processors: std::thread::available_parallelism().map_or(0, NonZero::get),
        }
    }
}

/// The address that this machine would send from to a far one. Connecting a datagram socket only picks a route.
fn route_address() -> Option<IpAddr> {
    // An address of the documentation range (RFC 5737): never on a local network.
    const FAR: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(FAR).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// The smaller of the machine's memory and the limits of its control groups, and whether a limit was the smaller.
fn usable_memory(read: impl Fn(&Path) -> Option<String>) -> (Option<ByteSize>, bool) {
    let total = read(Path::new("/proc/meminfo")).as_deref().and_then(mem_total);
    let limit = cgroup_limit(&read).filter(|limit| total.is_none_or(|total| *limit < total));
    (limit.or(total), limit.is_some())
}

fn mem_total(meminfo: &str) -> Option<ByteSize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok().map(ByteSize::kib)
}

/// The smallest memory limit on the way from this process's control group to the root; version 2, then version 1.
fn cgroup_limit(read: &impl Fn(&Path) -> Option<String>) -> Option<ByteSize> {
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let mut smallest: Option<ByteSize> = None;
    for line in groups.lines() {
        // "0::/path" in version 2, "5:memory:/path" in version 1.
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let group = PathBuf::from(root).join(path.trim_start_matches('/'));
        // In a container the path may name a folder outside of it; its root is then the container's own group.
        for folder in group.ancestors().take_while(|folder| folder.starts_with(root)) {
            let limit =
                read(&folder.join(file)).and_then(|text| text.trim().parse().ok()).map(ByteSize);
            smallest = [smallest, limit].into_iter().flatten().min();
        }
    }
    smallest
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn memory(files: &[(&str, &str)]) -> (Option<ByteSize>, bool) {
        let files: BTreeMap<PathBuf, String> =
            files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        usable_memory(|path| files.get(path).cloned())
    }

    const MEMINFO: (&str, &str) =
        ("/proc/meminfo", "MemTotal:        8388608 kB\nMemFree:         1 kB\n");

    #[test]
    fn memory_is_the_smallest_limit_on_the_way_up() {
        assert_eq!(memory(&[]), (None, false));
        assert_eq!(memory(&[MEMINFO]), (Some(ByteSize::gib(8)), false));
        let nested = [
            MEMINFO,
            ("/proc/self/cgroup", "0::/system.slice/tinykv.service\n"),
            ("/sys/fs/cgroup/system.slice/tinykv.service/memory.max", "max\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
        ];
        assert_eq!(memory(&nested), (Some(ByteSize::gib(1)), true));
        let container = [
            MEMINFO,
            ("/proc/self/cgroup", "0::/../other\n"),
            ("/sys/fs/cgroup/memory.max", "536870912\n"),
        ];
        assert_eq!(memory(&container), (Some(ByteSize::mib(512)), true));
        let version_1 = [
            MEMINFO,
            ("/proc/self/cgroup", "7:cpu,cpuacct:/a\n5:memory:/a\n"),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "268435456\n"),
        ];
        assert_eq!(memory(&version_1), (Some(ByteSize::mib(256)), true));
    }

    #[test]
    fn a_limit_above_the_machine_is_no_limit() {
        let files = [
            MEMINFO,
            ("/proc/self/cgroup", "5:memory:/\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(memory(&files), (Some(ByteSize::gib(8)), false));
    }
}
