//! Every bound of the system, in one place, each with the sum that justifies it.

use std::time::Duration;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Longest user key: TiKV's default (`storage.max-key-size`). Its memcomparable form (9/8 of it) and a timestamp
/// still fit into the engines' 65,535 bytes.
pub const KEY_BYTES_MAX: usize = 8 * KIB;

/// Largest value. A put of it, with its key and framing, is one log entry and fits into one message.
pub const VALUE_BYTES_MAX: usize = 8 * MIB - 64 * KIB;

/// Largest command, and thereby log entry. Clients send batches of up to 8 MiB and treat a refusal as final.
pub const ENTRY_BYTES_MAX: usize = 12 * MIB;

/// Largest message that the gRPC servers take: an entry of the largest size and its framing.
pub const MESSAGE_BYTES_MAX: usize = 16 * MIB;

/// Bytes of one scan's answer. Larger ones are refused, never cut short: clients take a short answer for the end of
/// the region. Room for 10,240 pairs, the most that clients ask for, of 6 KiB each.
pub const SCAN_BYTES_MAX: usize = 64 * MIB;

/// Pairs of one scan's answer when the request names no limit of its own.
pub const SCAN_PAIRS_MAX: usize = 100 * KIB;

/// HTTP/2 windows of stream and connection: a scan of 1 MiB and a few others travel without waiting.
pub const GRPC_WINDOW_BYTES: u32 = 2 * MIB as u32;

/// How long an HTTP/2 header list may be: a client's metadata, not a payload.
pub const GRPC_HEADER_BYTES_MAX: u32 = 16 * KIB as u32;

/// Shortest interval of a client's keep-alive pings that is tolerated.
pub const GRPC_PING_INTERVAL_MIN: Duration = Duration::from_secs(2);

/// Writes that wait for the log or engine at once, over all callers: at 64 connections of 256 requests.
pub const WRITES_WAITING_MAX: usize = 16 * KIB;

/// Bytes of those writes: what a small machine can lose to a stalled disk.
pub const WRITE_BYTES_WAITING_MAX: usize = 64 * MIB;

/// Bytes of messages of other stores that wait for a store's poll thread: a few appends of each of some hundred regions.
/// What comes beyond them is dropped, and sent again by its leader.
pub const RAFT_BYTES_WAITING_MAX: usize = 64 * MIB;

/// When a client may come again to a store that has stopped: it will be another process.
pub const RETRY_STOPPED_AFTER: Duration = Duration::from_secs(1);

/// Bytes of the disk that are kept free: with less, leaders refuse what needs more. Room for what is under way, for tables
/// that are merged, and for a few segments of the Raft log.
pub const DISK_RESERVE_BYTES: u64 = 64 * MIB as u64;

/// Bytes of one engine batch of the group commit: larger ones only add latency.
pub const WRITE_BATCH_BYTES_MAX: usize = 4 * MIB;

/// Commands of one BatchCommands stream that may be under way at once.
pub const STREAM_COMMANDS_MAX: usize = 16 * KIB;

/// Answers of one BatchCommands message: packed until the queue is empty or this many are there.
pub const STREAM_ANSWERS_MAX: usize = 256;

/// Bytes of answers of one BatchCommands message.
pub const STREAM_ANSWER_BYTES_MAX: usize = MIB;

/// Bytes that a delete-range on an engine without range tombstones removes per batch.
pub const DELETE_RANGE_BATCH_BYTES: usize = 4 * MIB;

/// Timestamps of one request: one millisecond's worth. (The logical part has 18 bits, and 0 is never handed out.)
pub const TSO_COUNT_MAX: u32 = (1 << 18) - 1;

/// How far ahead of the clock the durable end of the timestamp window lies.
pub const TSO_WINDOW: Duration = Duration::from_secs(3);

/// How far ahead of the clock demand may push timestamps before requests are refused: as far as the window lies
/// ahead anyway. It takes more than 262 million timestamps a second to get there.
pub const TSO_AHEAD_MAX: Duration = TSO_WINDOW;

/// How often the physical part of the timestamp oracle follows the clock.
pub const TSO_UPDATE_INTERVAL: Duration = Duration::from_millis(50);

/// How far beyond what the scheduler has given out a timestamp of a client may lie. TiKV's default
/// (`storage.max-ts.max-drift`); a store asks the scheduler again once in that time.
pub const TS_AHEAD_MAX: Duration = Duration::from_secs(60);

/// Ids reserved at once: one durable write per so many.
pub const ID_WINDOW: u64 = 1000;

/// Log records that wait for their disk or terminal; more are dropped, a log never holds up its process. At 200 bytes
/// each about 3 MiB.
pub const LOG_RECORDS_WAITING_MAX: usize = 16 * KIB;

/// Regions that a client remembers, about 200 bytes each. Beyond it forgets them all and asks again: one question
/// for each region in use, which is less than keeping an order of use on every request.
pub const CLIENT_REGIONS_MAX: usize = 100 * KIB;

/// Keys or pairs of one request of a client's batch.
pub const CLIENT_BATCH_KEYS_MAX: usize = 512;

/// Bytes of one request of a client's batch: one slow batch must not hold the connection for long.
pub const CLIENT_BATCH_BYTES_MAX: usize = MIB;

/// Pairs of one request of a client's scan.
pub const CLIENT_SCAN_PAGE: usize = KIB;

/// Requests that one operation of a client has under way at once, over all regions.
pub const CLIENT_REQUESTS_MAX: usize = 32;

/// Keys of a transaction that may be committed asynchronously, and bytes of them: its primary lists them all, and whoever
/// finds it left behind asks for each.
pub const CLIENT_ASYNC_COMMIT_KEYS_MAX: usize = 256;

/// See [`CLIENT_ASYNC_COMMIT_KEYS_MAX`].
pub const CLIENT_ASYNC_COMMIT_BYTES_MAX: usize = 4 * KIB;

/// How long the locks of a transaction that nobody prolongs are respected: longer than a commit takes, and short
/// enough to be waited for when a client has died.
pub const CLIENT_LOCK_TTL: Duration = Duration::from_secs(3);

/// The same for pessimistic transactions, which are prolonged while their client lives.
pub const CLIENT_LOCK_TTL_PROLONGED: Duration = Duration::from_secs(20);

/// How long a transaction is prolonged: whoever keeps keys locked for longer has forgotten it.
pub const CLIENT_TXN_LIFE: Duration = Duration::from_secs(3600);

/// Callers of one client that wait for a timestamp at once.
pub const CLIENT_TIMESTAMPS_WAITING_MAX: usize = 16 * KIB;

/// Services that hold back garbage collection at once: a few per backup, changefeed or tenant.
pub const SERVICE_SAFE_POINTS_MAX: usize = 1000;

/// Bytes of the name of such a service.
pub const SERVICE_ID_BYTES_MAX: usize = 256;

/// Bytes of the scheduler's log from which on it is worth a snapshot, if that is not larger itself: replaying them
/// takes a few milliseconds.
pub const SCHEDULER_LOG_BYTES: u64 = 4 * MIB as u64;

/// Bytes of records that wait for the scheduler's log at once: more than a second of region reports from a large
/// cluster. Beyond them requests are refused until the disk has caught up.
pub const SCHEDULER_LOG_BYTES_WAITING_MAX: usize = 16 * MIB;

/// What a region counts for at least when the weights of stores are compared. Splits cut at about a hundred times this.
pub const REGION_WEIGHT_MIN: u64 = MIB as u64;

/// And at most: the sum over ten million of them is still a number.
pub const REGION_WEIGHT_MAX: u64 = 1 << 39;

/// With so many bytes free a store is not low on space, however large its disk is: room for the replicas of some 80 regions
/// of the usual size. (PD's bound for young clusters.)
pub const LOW_SPACE_BYTES: u64 = 8 << 30;

/// How often the scheduler looks for what there is to do.
pub const PATROL_INTERVAL: Duration = Duration::from_millis(100);

/// Regions that it looks at each time: a hundred thousand take a bit more than a minute.
pub const PATROL_REGIONS: usize = 128;

/// How long the outcome of an operator can be asked for.
pub const OPERATOR_RECORD_TTL: Duration = Duration::from_secs(10 * 60);

/// Instructions that wait to be sent to stores. More are dropped: whatever is not done is asked for again.
pub const ORDERS_WAITING_MAX: usize = 4 * KIB;

/// Instructions that wait on the stream of one store. A store that takes so few that there are more gets the rest when
/// they are asked for again.
pub const ORDERS_OF_STORE_WAITING_MAX: usize = KIB;

/// Region heartbeats of one stream that wait for the scheduler's log together: one sync serves them all.
pub const REGION_HEARTBEATS_WAITING_MAX: usize = 256;

/// Regions of a store whose newest report waits to be sent to the scheduler: as many as a store holds, at about 300
/// bytes each. Beyond them reports are dropped, and everything is reported again once there is room.
pub const REGION_REPORTS_WAITING_MAX: usize = 64 * KIB;

/// Splits for which a store asks the scheduler for ids at once. The others come with the next look at their regions.
pub const SPLITS_UNDER_WAY_MAX: usize = 64;

/// Requests that wait for locks in one store. The others are told at once who has the lock.
pub const LOCK_WAITS_MAX: usize = 10_000;

/// Regions that a store looks up at the scheduler at once. The others are asked for again.
pub const REGION_LOOKUPS_MAX: usize = 16;

/// Regions that one request may ask ids for: as many as keys in the largest request of a client that splits ahead.
pub const SPLIT_REGIONS_MAX: u32 = 4 * KIB as u32;

/// Messages of one kind (appends, all others) that wait for one store: six rounds of heartbeats of 10,000 regions. More
/// are dropped; Raft sends again what matters.
pub const TRANSPORT_MESSAGES_WAITING_MAX: usize = 64 * KIB;

/// Bytes of those messages: two regions' whole windows of appends. A store that takes less than that is behind anyway,
/// and what waits longer is stale when it arrives.
pub const TRANSPORT_BYTES_WAITING_MAX: usize = 32 * MIB;

/// Bytes of messages that leave for a store in one batch, if one alone is not larger: enough that a batch costs little
/// beside its messages, and so few that a heartbeat does not wait long for the batch before it.
pub const TRANSPORT_BATCH_BYTES: usize = MIB;

/// How long a store waits before it dials another one again, at first: a restart takes about as long.
pub const TRANSPORT_RETRY_MIN: Duration = Duration::from_millis(50);

/// And at most: what a store that comes back may lose of its first seconds. It also is how often a store asks the
/// scheduler for the address of one that is gone.
pub const TRANSPORT_RETRY_MAX: Duration = Duration::from_secs(2);

/// How long dialling another store may take.
pub const TRANSPORT_DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Without word from another store for this long it is asked whether it is there, and given as long to answer: a cut
/// network or a stopped process is noticed after twice this time.
pub const TRANSPORT_PING_INTERVAL: Duration = Duration::from_secs(3);

/// Bytes of a snapshot's file that travel at once: 4 sends and 4 receives hold 4 MiB of them.
pub const SNAPSHOT_PART_BYTES: usize = 512 * KIB;

/// Snapshots that one store sends at once: each reads a disk that also serves requests.
pub const SNAPSHOT_SENDS_MAX: usize = 4;

/// Snapshots that one store receives at once, from all others.
pub const SNAPSHOT_RECEIVES_MAX: usize = 4;

/// Snapshots that wait to be sent. More are given up at once, and made again when Raft asks again.
pub const SNAPSHOT_SENDS_WAITING_MAX: usize = 256;

/// How long a snapshot waits to be sent: half of the time after which Raft asks for another one.
pub const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long a snapshot may stand still on its way.
pub const SNAPSHOT_STALL_MAX: Duration = Duration::from_secs(20);

/// Bytes a second below which a snapshot is given up: the log that it will need grows meanwhile.
pub const SNAPSHOT_BYTES_PER_SECOND_MIN: u64 = MIB as u64;

/// How long a graceful stop waits for requests that are under way.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX + TRANSPORT_BATCH_BYTES < MESSAGE_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX < TRANSPORT_BYTES_WAITING_MAX);
