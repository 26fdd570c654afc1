//! The network between the nodes: every advertised address is a proxy of ours, which can hold back what passes.
//!
//! Each connection goes from somebody to a node. Who dialled is found out from the kernel's table of connections and
//! the open files of our processes, so that every pair of nodes has a link of its own in each direction. A cut link
//! holds bytes back and delivers them when it heals, as TCP does over a cut of seconds; what is new hangs as well.
//!
//! Invariant: bytes are never lost, changed or reordered within a connection.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

use super::processes::{Cluster, Place};

/// What a link does, in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// It passes on.
    #[default]
    Open,
    /// It holds back.
    Cut,
    /// It passes on each piece after this time.
    Slow(Duration),
}

type Links = BTreeMap<(Place, Place), Flow>;

/// The proxies. They end when this is dropped.
#[derive(Debug)]
pub struct Network {
    links: watch::Sender<Links>,
    processes: Arc<Mutex<Vec<(Place, u32)>>>,
    _listeners: JoinSet<()>,
}

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

impl Network {
    /// Listens at every advertised address of `cluster`.
    ///
    /// # Errors
    /// An address is taken.
    pub async fn start(cluster: &Cluster) -> anyhow::Result<Network> {
        let (links, seen) = watch::channel(Links::new());
        let processes = Arc::new(Mutex::new(Vec::new()));
        let mut listeners = JoinSet::new();
        for node in cluster.nodes() {
            let listener = TcpListener::bind(&node.advertised)
                .await
                .with_context(|| format!("cannot listen at {}", node.advertised))?;
            let door = Door {
                to: node.place,
                addr: node.addr.clone(),
                links: seen.clone(),
                processes: Arc::clone(&processes),
            };
            listeners.spawn(door.serve(listener));
        }
        Ok(Network { links, processes, _listeners: listeners })
    }

    /// Says which processes are whose, after starts.
    pub fn know(&self, cluster: &Cluster) {
        *self.processes.lock().expect("nobody panics with it") = cluster.ids();
    }

    /// Sets one direction of a link.
    pub fn set(&self, from: Place, to: Place, flow: Flow) {
        self.links.send_modify(|links| {
            links.insert((from, to), flow);
        });
    }

    /// All links are open again.
    pub fn heal(&self) {
        self.links.send_modify(Links::clear);
    }
}

/// The proxy of one node.
#[derive(Clone)]
struct Door {
    to: Place,
    addr: String,
    links: watch::Receiver<Links>,
    processes: Arc<Mutex<Vec<(Place, u32)>>>,
}

impl Door {
    async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, peer)) = accepted {
                        connections.spawn(self.clone().connect(stream, peer));
                    }
                }
                // Reaps what is over.
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connect(mut self, near: TcpStream, peer: SocketAddr) {
        let processes = self.processes.lock().expect("nobody panics with it").clone();
        let from = dialled_by(peer.port(), &processes).unwrap_or(Place::Client);
        pass(&mut self.links, from, self.to).await;
        // Refused: so is this one, by closing it.
        let Ok(far) = TcpStream::connect(&self.addr).await else { return };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        let mut halves = JoinSet::new();
        halves.spawn(pump(near_read, far_write, self.links.clone(), from, self.to));
        halves.spawn(pump(far_read, near_write, self.links, self.to, from));
        // An end in order passes from one half to the other; an error ends both.
        while let Some(Ok(Ok(()))) = halves.join_next().await {}
    }
}

async fn pump(
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    mut links: watch::Receiver<Links>,
    from: Place,
    to: Place,
) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let count = read.read(&mut piece).await;
        pass(&mut links, from, to).await;
        match count? {
            0 => return write.shutdown().await,
            count => write.write_all(&piece[..count]).await?,
        }
    }
}

/// Returns when the link lets something pass.
async fn pass(links: &mut watch::Receiver<Links>, from: Place, to: Place) {
    let flow = |links: &Links| links.get(&(from, to)).copied().unwrap_or_default();
    let now = flow(&links.borrow());
    if let Flow::Slow(delay) = now {
        tokio::time::sleep(delay).await;
    }
    // The network is gone: so is everything.
    let _ = links.wait_for(|links| flow(links) != Flow::Cut).await;
}

/// Which of `processes` has a connection from local port `port`.
fn dialled_by(port: u16, processes: &[(Place, u32)]) -> Option<Place> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let socket = format!("socket:[{}]", inode_of(&table, port)?);
    let has_it = |pid: u32| {
        let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files.flatten().any(|file| {
            std::fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == socket.as_str())
        })
    };
    processes.iter().find(|(_, pid)| has_it(*pid)).map(|(place, _)| *place)
}

/// The inode of the socket with local port `port` on the loopback address, of `/proc/net/tcp`.
fn inode_of(table: &str, port: u16) -> Option<u64> {
    let local = format!("0100007F:{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace();
        // Number, local address, remote address, state, queues, timer, retransmits, user, time-out, inode.
        let is_it = columns.nth(1)? == local;
        let inode = columns.nth(7)?.parse().ok()?;
        (is_it && inode != 0).then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy before a server that answers with what it gets. Returns the address to dial, and the links.
    async fn echo() -> (SocketAddr, watch::Sender<Links>, JoinSet<()>) {
        let mut tasks = JoinSet::new();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = server.local_addr().unwrap().to_string();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = server.accept().await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        });
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = door.local_addr().unwrap();
        let (links, seen) = watch::channel(Links::new());
        // This process counts as a store.
        let processes = Arc::new(Mutex::new(vec![(Place::Store(2), std::process::id())]));
        let proxy = Door { to: Place::Store(1), addr, links: seen, processes };
        tasks.spawn(proxy.serve(door));
        (dialled, links, tasks)
    }

    async fn say(stream: &mut TcpStream, word: [u8; 4]) {
        stream.write_all(&word).await.unwrap();
        hear(stream, word).await;
    }

    async fn hear(stream: &mut TcpStream, word: [u8; 4]) {
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, word);
    }

    #[tokio::test]
    async fn a_cut_link_holds_back_and_delivers_when_it_heals() {
        let (addr, links, _tasks) = echo().await;
        let mut stream = TcpStream::connect(addr).await.unwrap();
        say(&mut stream, *b"ping").await;
        let (other, _open, _others) = echo().await;
        let mut other = TcpStream::connect(other).await.unwrap();

        for (from, to) in [(2, 1), (1, 2)] {
            links.send_modify(|links| {
                links.insert((Place::Store(from), Place::Store(to)), Flow::Cut);
            });
            stream.write_all(b"late").await.unwrap();
            // Much passes elsewhere meanwhile.
            for _ in 0..50 {
                say(&mut other, *b"tick").await;
            }
            let early = stream.try_read(&mut [0; 4]).map_err(|error| error.kind());
            assert_eq!(early, Err(std::io::ErrorKind::WouldBlock), "passed from {from} to {to}");
            links.send_modify(Links::clear);
            hear(&mut stream, *b"late").await;
        }
        links.send_modify(|links| {
            links.insert((Place::Store(3), Place::Store(1)), Flow::Cut);
        });
        say(&mut stream, *b"pong").await;
    }

    #[test]
    fn the_table_of_connections_is_understood() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
            \x20  1: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n";
        assert_eq!(inode_of(table, 40_000), Some(4712));
        assert_eq!(inode_of(table, 8080), Some(4711));
        assert_eq!(inode_of(table, 1), None);
    }
}
