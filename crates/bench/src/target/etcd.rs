//! etcd as target: members that the benchmark starts itself, with etcd's own defaults (every put is synced), on
//! loopback and in temporary folders.
//!
//! Gets are linearizable `Range` calls, puts are `Put` calls, both to the leader, which is etcd's best case. The
//! members and their folders go away with the target.

use std::{
    ffi::OsString,
    fs,
    fs::File,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use proto::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, StatusRequest, TxnRequest,
    TxnResponse, maintenance_client::MaintenanceClient, request_op,
};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use types::limits;

use super::{
    Connection, LocalFuture, OpError, Servers, Target, routes,
    wire::{self, UnaryClient},
};
use crate::{
    clock, closed_loop,
    error::Error,
    keys::Dataset,
    load, open_loop,
    open_loop::Schedule,
    window::{Pace, Plan, Shared},
    workload::Op,
};

const PROGRAM: &str = "etcd";

/// How long the members get to elect a leader.
const READY_SECONDS: u64 = 20;

/// How often they are asked meanwhile.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// Operations of one transaction: etcd's default limit.
const TXN_OPS_MAX: usize = 128;

/// A cluster of etcd.
pub(crate) struct EtcdTarget {
    dataset: Rc<Dataset>,
    servers: Servers,
    connections: Vec<EtcdConnection>,
    _members: Members,
}

impl EtcdTarget {
    /// Starts `members` members with data below `data_dir` (the system's temporary folder by default) and waits for
    /// their leader.
    pub(crate) async fn open(
        members: usize,
        data_dir: Option<&Path>,
        dataset: Rc<Dataset>,
        connections: usize,
    ) -> Result<EtcdTarget, Error> {
        let mut members = Members::start(members, data_dir)?;
        let leader = members.leader().await?;
        let connections = (0..connections)
            .map(|_| {
                let client = wire::unary_client(open_channel(&leader)?);
                let client = client.max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
                Ok(EtcdConnection { client, dataset: dataset.clone() })
            })
            .collect::<Result<_, Error>>()?;
        let servers = Servers {
            pids: members.members.iter().map(|member| member.process.id()).collect(),
            status: members.members.iter().map(|member| member.address.clone()).collect(),
        };
        Ok(EtcdTarget { dataset, servers, connections, _members: members })
    }
}

impl Target for EtcdTarget {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn dataset(&self) -> Rc<Dataset> {
        self.dataset.clone()
    }

    fn servers(&self) -> &Servers {
        &self.servers
    }

    fn batch(&self) -> Option<usize> {
        None
    }

    fn load(&self, seed: u64) -> LocalFuture<'_, Result<(), Error>> {
        Box::pin(load::ensure(&self.connections, &self.dataset, seed))
    }

    fn spawn(&self, plan: &Plan, shared: &Rc<Shared>) -> Vec<JoinHandle<()>> {
        match plan.pace {
            Pace::Closed { in_flight } => closed_loop::calls(&self.connections, in_flight, shared),
            Pace::Open { rate, arrivals, outstanding_max, seed } => {
                let schedule = Schedule::new(arrivals, rate, seed, clock::now());
                open_loop::calls(&self.connections, schedule, outstanding_max, shared)
            }
        }
    }
}

/// One connection to the leader.
#[derive(Clone)]
pub(crate) struct EtcdConnection {
    client: UnaryClient,
    dataset: Rc<Dataset>,
}

impl EtcdConnection {
    async fn range(&mut self, request: RangeRequest) -> Result<RangeResponse, OpError> {
        wire::unary(&mut self.client, "/etcdserverpb.KV/Range", request).await
    }
}

impl Connection for EtcdConnection {
    async fn call(&mut self, op: Op) -> Result<(), OpError> {
        match op {
            Op::Get { key } => {
                let request = RangeRequest { key: key.clone(), ..Default::default() };
                let response = self.range(request).await?;
                let pair = response.kvs.first().ok_or(OpError::Missing)?;
                self.dataset.verify(&key, &pair.value)
            }
            Op::Put { key, value } => {
                let request = PutRequest { key, value, ..Default::default() };
                let _: PutResponse =
                    wire::unary(&mut self.client, "/etcdserverpb.KV/Put", request).await?;
                Ok(())
            }
            Op::Scan { start, limit } => {
                let request = RangeRequest {
                    key: start,
                    range_end: self.dataset.end().clone(),
                    limit: i64::from(limit),
                    ..Default::default()
                };
                let response = self.range(request).await?;
                if response.kvs.is_empty() {
                    return Err(OpError::Missing);
                }
                response.kvs.iter().try_for_each(|pair| self.dataset.verify(&pair.key, &pair.value))
            }
        }
    }

    async fn put_many(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Result<(), OpError> {
        for pairs in pairs.chunks(TXN_OPS_MAX) {
            let success = pairs
                .iter()
                .map(|(key, value)| {
                    let put =
                        PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
                    RequestOp { request: Some(request_op::Request::RequestPut(put)) }
                })
                .collect();
            let request = TxnRequest { success, ..Default::default() };
            let _: TxnResponse =
                wire::unary(&mut self.client, "/etcdserverpb.KV/Txn", request).await?;
        }
        Ok(())
    }
}

/// The processes of a cluster and their folder. Dropping it ends and removes them.
struct Members {
    folder: PathBuf,
    members: Vec<Member>,
}

struct Member {
    process: Child,
    /// Where clients connect (host:port).
    address: String,
    log: PathBuf,
}

impl Members {
    fn start(count: usize, data_dir: Option<&Path>) -> Result<Members, Error> {
        let parent = data_dir.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let folder = parent.join(format!("tinykv-bench-etcd-{}", std::process::id()));
        let file = |source| Error::File { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(file)?;
        // From here on the folder is removed whatever happens.
        let mut members = Members { folder, members: Vec::new() };
        warn_if_in_memory(&members.folder);

        let ports =
            free_ports(count * 2).map_err(|source| Error::Machine { what: "ports", source })?;
        let (client_ports, peer_ports) = ports.split_at(count);
        let cluster: Vec<String> = peer_ports
            .iter()
            .enumerate()
            .map(|(index, port)| format!("{}=http://127.0.0.1:{port}", name(index)))
            .collect();
        for (index, (client_port, peer_port)) in client_ports.iter().zip(peer_ports).enumerate() {
            let member = Member::start(
                &members.folder,
                &name(index),
                *client_port,
                *peer_port,
                &cluster.join(","),
            )?;
            members.members.push(member);
        }
        Ok(members)
    }

    /// Waits until all members agree on a leader; returns its address.
    async fn leader(&mut self) -> Result<String, Error> {
        let deadline = clock::now() + Duration::from_secs(READY_SECONDS);
        loop {
            let mut leader = None;
            let mut ready = 0;
            for member in &mut self.members {
                if let Ok(Some(status)) = member.process.try_wait() {
                    let reason = format!("it ended with {status}: {}", last_line(&member.log));
                    return Err(Error::Program { program: PROGRAM, reason });
                }
                let mut client = MaintenanceClient::new(open_channel(&member.address)?);
                let request = client.status(StatusRequest {});
                let Ok(Ok(status)) = tokio::time::timeout(Duration::from_secs(1), request).await
                else {
                    continue;
                };
                let status = status.into_inner();
                ready += usize::from(status.leader != 0);
                if status.header.is_some_and(|header| header.member_id == status.leader) {
                    leader = Some(member.address.clone());
                }
            }
            match leader {
                Some(leader) if ready == self.members.len() => return Ok(leader),
                _ if clock::now() > deadline => {
                    let reason = self
                        .members
                        .first()
                        .map(|member| last_line(&member.log))
                        .unwrap_or_default();
                    return Err(Error::NotReady {
                        program: PROGRAM,
                        seconds: READY_SECONDS,
                        reason,
                    });
                }
                _ => tokio::time::sleep(READY_PAUSE).await,
            }
        }
    }
}

impl Member {
    fn start(
        folder: &Path,
        name: &str,
        client_port: u16,
        peer_port: u16,
        cluster: &str,
    ) -> Result<Member, Error> {
        let log = folder.join(format!("{name}.log"));
        let file = |source| Error::File { path: log.clone(), source };
        let output = File::create(&log).map_err(file)?;
        let errors = output.try_clone().map_err(file)?;
        let client_url = format!("http://127.0.0.1:{client_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let mut command = Command::new(PROGRAM);
        // Variables of the caller's own etcd would change what is measured.
        let foreign: Vec<OsString> = std::env::vars_os()
            .map(|(name, _)| name)
            .filter(|name| name.to_string_lossy().starts_with("ETCD_"))
            .collect();
        foreign.iter().for_each(|name| {
            command.env_remove(name);
        });
        command
            .args(["--name", name])
            .arg("--data-dir")
            .arg(folder.join(name))
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", cluster, "--initial-cluster-state", "new"])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let process = command.spawn().map_err(|error| Error::Program {
            program: PROGRAM,
            reason: format!("{error} (it must be in PATH; Debian's package is etcd-server)"),
        })?;
        Ok(Member { process, address: format!("127.0.0.1:{client_port}"), log })
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for member in &mut self.members {
            // It may be gone already; then there is nothing to do.
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn name(index: usize) -> String {
    format!("m{}", index + 1)
}

fn open_channel(address: &str) -> Result<Channel, Error> {
    routes::channel(address)
        .map_err(|error| Error::Store { address: address.to_owned(), reason: error.to_string() })
}

/// Ports that nobody listens on. All are held until all are found, so that none comes twice.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// In a file system in memory syncs cost nothing: figures would flatter etcd.
fn warn_if_in_memory(folder: &Path) {
    const TMPFS: i64 = 0x0102_1994;
    if rustix::fs::statfs(folder).is_ok_and(|stat| stat.f_type == TMPFS) {
        eprintln!(
            "warning: {} lies in memory, where syncs cost nothing: choose --data-dir",
            folder.display()
        );
    }
}

fn last_line(log: &Path) -> String {
    let text =
        fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    text.lines().next_back().unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_distinct() {
        let mut ports = free_ports(8).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }
}
