//! How scripts spell peers, changes and orders.

use std::error::Error;

use scheduler::{
    Change, Instruction, OperatorInfo, Order, PeerChange, PeerChangeKind, RegionInfo, Status,
};
use types::{Bytes, Peer, PeerId, PeerRole, StoreId, key};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// `1* 2 3l`: the peers of a region, and its leader. The peer of region 1 on store 2 has the id 12.
pub(crate) fn parse_peers(region: u64, text: &str) -> Fallible<(Vec<Peer>, Option<Peer>)> {
    let (mut peers, mut leader) = (Vec::new(), None);
    for word in text.split_whitespace() {
        let store = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        let store_id = StoreId(store.parse()?);
        let mut peer =
            Peer { id: PeerId(10 * region + store_id.0), store_id, role: PeerRole::Voter };
        for mark in word[store.len()..].chars() {
            match mark {
                '*' => leader = Some(store_id),
                'l' => peer.role = PeerRole::Learner,
                'i' => peer.role = PeerRole::IncomingVoter,
                'd' => peer.role = PeerRole::DemotingVoter,
                other => return Err(format!("a peer with mark {other}?").into()),
            }
        }
        peers.push(peer);
    }
    let leader = peers.iter().find(|peer| Some(peer.store_id) == leader).copied();
    Ok((peers, leader))
}

/// The change that one of the keys of `admin` means.
pub(crate) fn parse_change(
    [add, remove, promote, to, transfer, split]: [&Option<String>; 6],
) -> Fallible<Change> {
    let store = |text: &str| -> Fallible<StoreId> { Ok(StoreId(text.parse()?)) };
    Ok(if let Some(text) = add {
        Change::Add { store: store(text)? }
    } else if let Some(text) = remove {
        Change::Remove { store: store(text)? }
    } else if let Some(text) = promote {
        Change::Promote { store: store(text)? }
    } else if let Some(text) = to {
        let (from, to) = text.split_once('-').ok_or("FROM-TO")?;
        Change::Replace { from: store(from)?, to: store(to)? }
    } else if let Some(text) = transfer {
        Change::TransferLeader { to: store(text)? }
    } else if let Some(text) = split {
        let keys = text.split_whitespace().map(|key| Bytes::from(key.to_owned()));
        Change::Split { keys: keys.collect() }
    } else {
        return Err("admin wants what?".into());
    })
}

pub(crate) fn draw_change(change: &Change) -> String {
    match change {
        Change::Add { store } => format!("add a peer on store {store}"),
        Change::Promote { store } => format!("promote the learner on store {store}"),
        Change::Remove { store } => format!("remove the peer on store {store}"),
        Change::Replace { from, to } => format!("move the peer on store {from} to store {to}"),
        Change::TransferLeader { to } => format!("let store {to} lead"),
        Change::LeaveJoint => "leave the joint state".to_owned(),
        Change::Split { keys } => format!("split at {} keys", keys.len()),
    }
}

/// `make-up-replica [region,replica]: add learner new@4; promote learner new@4`.
pub(crate) fn draw_operator(operator: Option<&OperatorInfo>) -> String {
    let Some(operator) = operator else { return "nothing".to_owned() };
    let steps: Vec<String> = operator.steps.iter().map(ToString::to_string).collect();
    let steps = steps.join("; ").replace(" 0@", " new@");
    format!("{} [{}]: {steps}", operator.desc, operator.kinds.join(","))
}

/// The same with how it stands.
pub(crate) fn draw_info(info: &OperatorInfo) -> String {
    let status = match info.status {
        Status::Running => format!("running, {} of {} steps done", info.done, info.steps.len()),
        Status::Success => "success".to_owned(),
        Status::Timeout => "timeout".to_owned(),
        Status::Canceled(why) => format!("canceled: {why}"),
        Status::Replaced => "replaced".to_owned(),
    };
    let steps: Vec<String> = info.steps.iter().map(ToString::to_string).collect();
    format!("{} [{}] {status}: {}", info.desc, info.kinds.join(","), steps.join("; "))
}

pub(crate) fn draw_order(order: &Order) -> String {
    let Order { region, epoch, leader, instruction } = order;
    let drawn = match instruction {
        Instruction::ChangePeer(change) => draw_peer_change(change),
        Instruction::ChangePeers(changes) if changes.is_empty() => "leave joint state".to_owned(),
        Instruction::ChangePeers(changes) => {
            let changes: Vec<String> = changes.iter().map(draw_peer_change).collect();
            format!("at once: {}", changes.join(", "))
        }
        Instruction::TransferLeader { to } => format!("let {}@{} lead", to.id, to.store_id),
        Instruction::Split { keys } => {
            let keys: Vec<String> = keys.iter().map(|bytes| key::display(bytes)).collect();
            format!("split at [{}]", keys.join(", "))
        }
    };
    format!("→ {}@{} region {region} {epoch}: {drawn}", leader.id, leader.store_id)
}

fn draw_peer_change(change: &PeerChange) -> String {
    let what = match change.kind {
        PeerChangeKind::Voter => "voter",
        PeerChangeKind::Learner => "learner",
        PeerChangeKind::Remove => "remove",
    };
    format!("{what} {}@{}", change.peer.id, change.peer.store_id)
}

/// `region 1 [a, m) 2/1: 11@1* 12@2 1000@4l(lags)`.
pub(crate) fn draw_region(info: &RegionInfo) -> String {
    let bound = |bytes: &[u8], open: &str| match bytes.is_empty() {
        true => open.to_owned(),
        false => key::display(bytes),
    };
    let peer = |peer: &Peer| {
        let role = match peer.role {
            PeerRole::Voter => "",
            PeerRole::Learner => "l",
            PeerRole::IncomingVoter => "i",
            PeerRole::DemotingVoter => "d",
        };
        let leads = info.leader.is_some_and(|leader| leader.id == peer.id);
        let lags = info.pending_peers.iter().any(|pending| pending.id == peer.id);
        let (star, lags) = (if leads { "*" } else { "" }, if lags { "(lags)" } else { "" });
        format!("{}@{}{role}{star}{lags}", peer.id, peer.store_id)
    };
    let region = &info.region;
    let peers: Vec<String> = region.peers.iter().map(peer).collect();
    let (start, end) = (bound(&region.range.start, "-∞"), bound(&region.range.end, "+∞"));
    format!("region {} [{start}, {end}) {}: {}", region.id, region.epoch, peers.join(" "))
}
