//! The connection to a scheduler elsewhere.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use proto::{
    internal::placement_client::PlacementClient,
    pdpb::{self, pd_client::PdClient},
};
use tokio::sync::Mutex;
use tonic::{
    Code as GrpcCode, Status,
    transport::{Channel, Endpoint},
};
use types::Code;

use super::{PlacementError, Result};

/// How long one question to the scheduler may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How often a connection is tried out on which nothing happens, and how long that may take: a stream on which nobody
/// says anything must not outlive the machine at its other end.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3));

/// A scheduler elsewhere, dialled by the first of its addresses that answers.
#[derive(Debug)]
pub(crate) struct Remote {
    endpoints: Vec<String>,
    connection: Mutex<Option<Connection>>,
    /// The first cluster that answered; 0 before. Another one is never taken for it.
    cluster_id: AtomicU64,
}

/// A connection to a scheduler of that cluster.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) cluster_id: u64,
    channel: Channel,
}

impl Remote {
    pub(crate) fn new(endpoints: Vec<String>) -> Remote {
        Remote { endpoints, connection: Mutex::new(None), cluster_id: AtomicU64::new(0) }
    }

    /// The connection that last worked, or a new one to the first address that answers.
    pub(super) async fn connection(&self) -> Result<Connection> {
        // Held while dialling: callers that come meanwhile want the same connection.
        let mut connection = self.connection.lock().await;
        if let Some(connection) = connection.as_ref() {
            return Ok(connection.clone());
        }
        let mut reasons = Vec::new();
        for endpoint in &self.endpoints {
            match dial(endpoint).await {
                Ok(dialled) => {
                    self.check_cluster(endpoint, dialled.cluster_id)?;
                    return Ok(connection.insert(dialled).clone());
                }
                Err(reason) => reasons.push(format!("{endpoint} {reason}")),
            }
        }
        let message = format!("no scheduler answered: {}", reasons.join(", "));
        Err(PlacementError::new(Code::SchedulerUnreachable, message))
    }

    /// The first cluster is ours. A scheduler that was set up anew at the same address knows nothing of it.
    fn check_cluster(&self, endpoint: &str, found: u64) -> Result<()> {
        let known = self.cluster_id.load(Ordering::Relaxed);
        if known == 0 || known == found {
            self.cluster_id.store(found, Ordering::Relaxed);
            return Ok(());
        }
        let message = format!("{endpoint} is a scheduler of cluster {found}, not of {known}");
        Err(PlacementError::new(Code::ClusterMismatch, message))
    }

    /// Forgets the connection: the next question dials again.
    pub(super) async fn forget_connection(&self) {
        *self.connection.lock().await = None;
    }

    /// Asks, and forgets the connection if the transport failed.
    pub(super) async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(Connection) -> Result<T, Status>,
    ) -> Result<T> {
        let connection = self.connection().await?;
        match tokio::time::timeout(TIMEOUT, question(connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => {
                if status.code() == GrpcCode::Unavailable {
                    self.forget_connection().await;
                }
                Err(status.into())
            }
            Err(_) => {
                self.forget_connection().await;
                let message =
                    format!("the scheduler did not answer within {} s", TIMEOUT.as_secs());
                Err(PlacementError::new(Code::SchedulerUnreachable, message))
            }
        }
    }
}

impl Connection {
    pub(super) fn pd(&self) -> PdClient<Channel> {
        PdClient::new(self.channel.clone())
    }

    pub(super) fn internal(&self) -> PlacementClient<Channel> {
        PlacementClient::new(self.channel.clone())
    }
}

/// Dials one address and asks which cluster it is of.
async fn dial(endpoint: &str) -> Result<Connection, String> {
    let uri =
        if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let endpoint = Endpoint::from_shared(uri).map_err(|error| error.to_string())?;
    let (interval, patience) = KEEP_ALIVE;
    let endpoint = endpoint
        .connect_timeout(TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(interval)
        .keep_alive_timeout(patience);
    let channel = endpoint.connect().await.map_err(|error| root_cause(&error))?;
    let mut pd = PdClient::new(channel.clone());
    let asked = pd.get_members(pdpb::GetMembersRequest::default());
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(Ok(members)) => {
            let cluster_id = members.into_inner().header.map_or(0, |header| header.cluster_id);
            Ok(Connection { cluster_id, channel })
        }
        Ok(Err(status)) => Err(format!("answered {}", status.message())),
        Err(_) => Err(format!("timed out after {} s", TIMEOUT.as_secs())),
    }
}

/// The innermost reason of a transport error: "Connection refused" instead of "transport error".
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
