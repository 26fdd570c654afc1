//! What may happen next.

use std::sync::Arc;

use engine::{Snapshot, raft_log::Ticket};
use raft::MessageBody as RaftBody;
use raftstore::{
    StoreMessage,
    apply::Applied,
    message::MessageBody,
    shell::Moment,
    split_check::SplitJob,
    store::{Request, RequestKind, Token},
};
use types::{Bytes, PeerId, Region, RegionId, TimeStamp};

use crate::{
    hash::mix,
    store::{Action, machine::Answer, txn::TxnCall},
    world::MachineId,
};

/// Something that happens at its time.
pub(super) enum Event {
    Tick {
        machine: MachineId,
        life: u64,
    },
    Message {
        from: MachineId,
        to: MachineId,
        message: Box<StoreMessage>,
        /// The file of a snapshot, and the life of its sender.
        file: Option<(Bytes, u64)>,
    },
    /// What became of a snapshot, told its sender.
    Sent {
        machine: MachineId,
        life: u64,
        region_id: RegionId,
        to: PeerId,
        arrived: bool,
    },
    /// A request of a transaction.
    Txn {
        machine: MachineId,
        call: Box<TxnCall>,
    },
    /// A leader asks the scheduler for a timestamp, or gets it, for a request of a transaction.
    MaxTs {
        machine: MachineId,
        life: u64,
        id: u64,
        term: u64,
        ts: Option<TimeStamp>,
    },
    /// The scheduler answers what it knows of a region.
    RegionKnown {
        machine: MachineId,
        region: Box<Region>,
    },
    /// The sync of the log is over; if it was done when it began, with this result.
    LogSync {
        machine: MachineId,
        life: u64,
        done: Option<Ticket>,
    },
    EngineSync {
        machine: MachineId,
        life: u64,
    },
    Apply {
        machine: MachineId,
        life: u64,
    },
    Applied {
        machine: MachineId,
        life: u64,
        results: Vec<Applied<Answer>>,
    },
    MakeSnapshot {
        machine: MachineId,
        life: u64,
        region_id: RegionId,
    },
    Read {
        machine: MachineId,
        life: u64,
        token: Token,
        region_id: RegionId,
        version: u64,
        term: u64,
    },
    Request {
        machine: MachineId,
        request: Box<Request>,
    },
    /// A reader on a thread of its own, which has taken its snapshot, looks at the lease.
    LeaseRead {
        machine: MachineId,
        life: u64,
        request: Box<Request>,
        moment: Moment,
        snapshot: Arc<dyn Snapshot>,
    },
    CheckSplit {
        machine: MachineId,
        life: u64,
        job: SplitJob,
    },
    Thaw {
        machine: MachineId,
    },
    Action(Action),
}

impl Event {
    /// Whether it happens on a reader's thread.
    pub(super) fn is_a_readers(&self) -> bool {
        match self {
            Event::LeaseRead { .. } => true,
            Event::Request { request, .. } => {
                matches!(request.kind, RequestKind::Read { replica_read: false })
            }
            _ => false,
        }
    }

    /// The machine that it happens to, and in which of its lives if not in any.
    pub(super) fn address(&self) -> Option<(MachineId, Option<u64>)> {
        match *self {
            Event::Tick { machine, life }
            | Event::Sent { machine, life, .. }
            | Event::LogSync { machine, life, .. }
            | Event::EngineSync { machine, life }
            | Event::Apply { machine, life }
            | Event::Applied { machine, life, .. }
            | Event::MakeSnapshot { machine, life, .. }
            | Event::LeaseRead { machine, life, .. }
            | Event::CheckSplit { machine, life, .. }
            | Event::MaxTs { machine, life, .. }
            | Event::Read { machine, life, .. } => Some((machine, Some(life))),
            Event::Message { to, .. } => Some((to, None)),
            Event::Request { machine, .. }
            | Event::Txn { machine, .. }
            | Event::RegionKnown { machine, .. } => Some((machine, None)),
            Event::Thaw { .. } | Event::Action(_) => None,
        }
    }

    /// Stand for it in the trace.
    pub(super) fn numbers(&self) -> (u64, u64) {
        match self {
            Event::Tick { machine, .. } => (1, *machine as u64),
            Event::Message { message, .. } => (2, message_number(message)),
            Event::Sent { region_id, to, .. } => (3, region_id.0 ^ to.0 << 32),
            Event::LogSync { machine, .. } => (4, *machine as u64),
            Event::EngineSync { machine, .. } => (5, *machine as u64),
            Event::Apply { machine, .. } => (6, *machine as u64),
            Event::Applied { machine, results, .. } => (7, (results.len() << 8 | machine) as u64),
            Event::MakeSnapshot { region_id, .. } => (8, region_id.0),
            Event::Read { token, .. } => (9, token.0),
            Event::Request { request, .. } => (10, request.token.0),
            Event::Thaw { machine } => (11, *machine as u64),
            Event::Action(_) => (12, 0),
            Event::LeaseRead { request, .. } => (13, request.token.0),
            Event::CheckSplit { job, .. } => (14, job.region_id.0),
            Event::RegionKnown { region, .. } => (15, region.id.0),
            Event::Txn { call, .. } => (16, call.token.0),
            Event::MaxTs { id, .. } => (17, *id),
        }
    }
}

/// Stands for a message in the trace.
pub(super) fn message_number(message: &StoreMessage) -> u64 {
    let route = mix(message.region_id.0 ^ message.from.id.0 << 20 ^ message.to.id.0 << 40);
    match &message.body {
        MessageBody::Raft { message: raft, .. } => {
            let kind = match &raft.body {
                RaftBody::Append { .. } => 1,
                RaftBody::Heartbeat { .. } => 2,
                RaftBody::Vote { .. } | RaftBody::PreVote { .. } => 3,
                RaftBody::Snapshot(_) => 4,
                _ => 5,
            };
            route ^ mix(raft.term << 4 | kind)
        }
        MessageBody::AmIMember => route ^ 6,
        MessageBody::Gone { region } => route ^ mix(region.epoch.conf_ver << 4 | 7),
        #[allow(unreachable_patterns, reason = "messages are added to")]
        _ => route ^ 8,
    }
}
