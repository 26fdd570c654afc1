//! The interface, pinned: paths of all methods, and the bytes of the messages in which the two
//! families differ or which every client needs. The bytes are computed by hand, from the field
//! numbers: tag = number << 3 | wire type (0 varint, 2 length and bytes).

use std::fmt::Debug;

use prost::Message;
use proto::tikvpb::{batch_commands_request, batch_commands_response};
use proto::{kvrpcpb, pdpb, tikvpb, tinykv};
use tonic::server::NamedService;

/// Encodes to these bytes, and decodes from them.
#[track_caller]
fn assert_wire<M: Message + Default + PartialEq + Debug>(message: M, bytes: &[u8]) {
    assert_eq!(
        message.encode_to_vec().escape_ascii().to_string(),
        bytes.escape_ascii().to_string()
    );
    assert_eq!(M::decode(bytes).expect("golden bytes decode"), message);
}

fn region_1() -> Option<kvrpcpb::Context> {
    Some(kvrpcpb::Context { region_id: 1, ..Default::default() })
}

fn pair_a_b() -> kvrpcpb::KvPair {
    kvrpcpb::KvPair { key: "a".into(), value: "b".into(), ..Default::default() }
}

#[test]
fn get_members() {
    let member = pdpb::Member {
        name: "p1".into(),
        member_id: 5,
        client_urls: vec!["http://a".into()],
        ..Default::default()
    };
    assert_wire(
        pdpb::GetMembersResponse {
            header: Some(pdpb::ResponseHeader { cluster_id: 7, error: None }),
            members: vec![member.clone()],
            leader: Some(member.clone()),
            etcd_leader: Some(member),
            ..Default::default()
        },
        b"\x0a\x02\x08\x07\
          \x12\x10\x0a\x02p1\x10\x05\x22\x08http://a\
          \x1a\x10\x0a\x02p1\x10\x05\x22\x08http://a\
          \x22\x10\x0a\x02p1\x10\x05\x22\x08http://a",
    );
}

#[test]
fn raw_scan_of_tikv_and_of_tinykv() {
    assert_wire(
        kvrpcpb::RawScanRequest {
            context: region_1(),
            start_key: "a".into(),
            limit: 2,
            key_only: true,
            cf: "default".into(),
            reverse: true,
            end_key: "z".into(),
        },
        b"\x0a\x02\x08\x01\x12\x01a\x18\x02\x20\x01\x2a\x07default\x30\x01\x3a\x01z",
    );
    assert_wire(
        tinykv::kvrpc::RawScanRequest {
            context: region_1(),
            start_key: "a".into(),
            limit: 2,
            cf: "default".into(),
        },
        b"\x0a\x02\x08\x01\x12\x01a\x18\x02\x22\x07default",
    );

    assert_wire(
        kvrpcpb::RawScanResponse { region_error: None, kvs: vec![pair_a_b()] },
        b"\x12\x06\x12\x01a\x1a\x01b",
    );
    assert_wire(
        tinykv::kvrpc::RawScanResponse {
            region_error: None,
            error: "e".into(),
            kvs: vec![pair_a_b()],
        },
        b"\x12\x01e\x1a\x06\x12\x01a\x1a\x01b",
    );
}

#[test]
fn check_txn_status_of_tikv_and_of_tinykv() {
    assert_wire(
        kvrpcpb::CheckTxnStatusRequest {
            context: region_1(),
            primary_key: "p".into(),
            lock_ts: 5,
            caller_start_ts: 6,
            current_ts: 7,
            rollback_if_not_exist: true,
            force_sync_commit: true,
            resolving_pessimistic_lock: true,
            verify_is_primary: true,
            is_txn_file: false,
        },
        b"\x0a\x02\x08\x01\x12\x01p\x18\x05\x20\x06\x28\x07\x30\x01\x38\x01\x40\x01\x48\x01",
    );
    assert_wire(
        tinykv::kvrpc::CheckTxnStatusRequest {
            context: region_1(),
            primary_key: "p".into(),
            lock_ts: 5,
            current_ts: 7,
        },
        b"\x0a\x02\x08\x01\x12\x01p\x18\x05\x20\x07",
    );

    let action = kvrpcpb::Action::LockNotExistRollback.into();
    assert_wire(
        kvrpcpb::CheckTxnStatusResponse {
            lock_ttl: 9,
            commit_version: 10,
            action,
            lock_info: Some(Box::new(kvrpcpb::LockInfo { lock_version: 8, ..Default::default() })),
            ..Default::default()
        },
        b"\x18\x09\x20\x0a\x28\x02\x32\x02\x10\x08",
    );
    assert_wire(
        tinykv::kvrpc::CheckTxnStatusResponse {
            region_error: None,
            lock_ttl: 9,
            commit_version: 10,
            action,
        },
        b"\x10\x09\x18\x0a\x20\x02",
    );
}

#[test]
fn batch_commands() {
    use batch_commands_request::request::Cmd as Command;
    use batch_commands_response::response::Cmd as Answer;

    let get = kvrpcpb::RawGetRequest { context: region_1(), key: "k".into(), cf: String::new() };
    let empty = tikvpb::BatchCommandsEmptyRequest { test_id: 4, delay_time: 0 };
    assert_wire(
        tikvpb::BatchCommandsRequest {
            requests: vec![
                batch_commands_request::Request { cmd: Some(Command::RawGet(get)) },
                batch_commands_request::Request { cmd: Some(Command::Empty(empty)) },
            ],
            request_ids: vec![3, 300],
            client_send_time_ns: 0,
        },
        b"\x0a\x09\x6a\x07\x0a\x02\x08\x01\x12\x01k\
          \x0a\x05\xfa\x0f\x02\x08\x04\
          \x12\x03\x03\xac\x02",
    );

    let found = kvrpcpb::RawGetResponse { value: "v".into(), ..Default::default() };
    assert_wire(
        tikvpb::BatchCommandsResponse {
            responses: vec![batch_commands_response::Response { cmd: Some(Answer::RawGet(found)) }],
            request_ids: vec![3],
            ..Default::default()
        },
        b"\x0a\x05\x6a\x03\x1a\x01v\x12\x01\x03",
    );
}

/// A command from the future decodes as one without a body: its id can still be answered.
#[test]
fn unknown_commands_keep_their_place() {
    let bytes = b"\x0a\x05\xda\x0c\x02\x08\x04\x0a\x02\x6a\x00\x12\x02\x01\x02";
    let batch = tikvpb::BatchCommandsRequest::decode(&bytes[..]).expect("decodes");
    assert_eq!(batch.request_ids, [1, 2]);
    assert_eq!(batch.requests[0].cmd, None);
    assert!(batch.requests[1].cmd.is_some());
}

/// Services and their methods; `>Method` takes a stream, `Method>` returns one.
const SERVICES: &str = "\
/deadlock.Deadlock
  GetWaitForEntries
  >Detect>
/tikvpb.Tikv
  KvGet
  KvBatchGet
  KvScan
  KvPrewrite
  KvCommit
  KvBatchRollback
  KvCleanup
  KvPessimisticLock
  KVPessimisticRollback
  KvTxnHeartBeat
  KvCheckTxnStatus
  KvCheckSecondaryLocks
  KvScanLock
  KvResolveLock
  KvGC
  KvDeleteRange
  KvFlush
  KvBufferBatchGet
  BroadcastTxnStatus
  KvImport
  RawGet
  RawBatchGet
  RawPut
  RawBatchPut
  RawDelete
  RawBatchDelete
  RawScan
  RawBatchScan
  RawDeleteRange
  RawGetKeyTTL
  RawCompareAndSwap
  RawChecksum
  Coprocessor
  CoprocessorStream>
  BatchCoprocessor>
  DelegateCoprocessor
  RawCoprocessor
  GetEstimateTiCICount
  >BatchCommands>
  UnsafeDestroyRange
  SplitRegion
  ReadIndex
  CheckLeader
  GetStoreSafeTS
  GetHealthFeedback
  KvPrepareFlashbackToVersion
  KvFlashbackToVersion
  MvccGetByKey
  MvccGetByStartTs
  RegisterLockObserver
  CheckLockObserver
  RemoveLockObserver
  PhysicalScanLock
  GetLockWaitInfo
  GetLockWaitHistory
  Compact
  GetTiFlashSystemTable
/pdpb.PD
  GetMembers
  GetClusterInfo
  Bootstrap
  IsBootstrapped
  GetClusterConfig
  PutClusterConfig
  AllocID
  IsSnapshotRecovering
  >Tso>
  GetMinTS
  SyncMaxTS
  GetDCLocationInfo
  SetExternalTimestamp
  GetExternalTimestamp
  ReportMinResolvedTS
  GetStore
  PutStore
  GetAllStores
  StoreHeartbeat
  GetRegion
  GetPrevRegion
  GetRegionByID
  >QueryRegion>
  ScanRegions
  BatchScanRegions
  >RegionHeartbeat>
  >ReportBuckets
  >SyncRegions>
  AskSplit
  ReportSplit
  AskBatchSplit
  ReportBatchSplit
  SplitRegions
  SplitAndScatterRegions
  ScatterRegion
  GetOperator
  GetGCSafePoint
  UpdateGCSafePoint
  UpdateServiceGCSafePoint
  GetGCState
  GetAllKeyspacesGCStates
  AdvanceGCSafePoint
  AdvanceTxnSafePoint
  SetGCBarrier
  DeleteGCBarrier
  SetGlobalGCBarrier
  DeleteGlobalGCBarrier
  GetGCSafePointV2
  WatchGCSafePointV2>
  UpdateGCSafePointV2
  UpdateServiceSafePointV2
  GetAllGCSafePointV2
  StoreGlobalConfig
  LoadGlobalConfig
  WatchGlobalConfig>
/keyspacepb.Keyspace
  LoadKeyspace
  LookupKeyspace
  LoadKeyspaceByID
  WatchKeyspaces>
  UpdateKeyspaceState
  GetAllKeyspaces
/keyspacepb.Namespace
  CreateNamespace
  LoadNamespace
  GetAllNamespaces
  UpdateNamespaceState
/tinykvpb.TinyKv
  KvGet
  KvScan
  KvPrewrite
  KvCommit
  KvCheckTxnStatus
  KvBatchRollback
  KvResolveLock
  RawGet
  RawPut
  RawDelete
  RawScan
  Coprocessor
/etcdserverpb.KV
  Range
  Put
  DeleteRange
  Txn
/etcdserverpb.Cluster
  MemberList
/etcdserverpb.Maintenance
  Status
/grpc.health.v1.Health
  Check
  Watch>
";

#[test]
fn every_method_is_served_under_its_path() {
    let roots = [
        "tikv/tikvpb.proto",
        "pd/pdpb.proto",
        "pd/keyspacepb.proto",
        "tinykv/tinykvpb.proto",
        "etcd/etcdserverpb.proto",
        "health/health.proto",
    ];
    let mut services = String::new();
    for file in protox::compile(roots, ["../../proto"]).expect("sources compile").file {
        for service in &file.service {
            services += &format!("/{}.{}\n", file.package(), service.name());
            for method in &service.method {
                let takes = if method.client_streaming() { ">" } else { "" };
                let returns = if method.server_streaming() { ">" } else { "" };
                services += &format!("  {takes}{}{returns}\n", method.name());
            }
        }
    }
    assert_eq!(services, SERVICES);
}

#[test]
fn servers_have_the_names_of_their_services() {
    fn name<S: NamedService>() -> &'static str {
        S::NAME
    }
    assert_eq!(name::<tikvpb::tikv_server::TikvServer<()>>(), "tikvpb.Tikv");
    assert_eq!(name::<pdpb::pd_server::PdServer<()>>(), "pdpb.PD");
    assert_eq!(name::<proto::tinykvpb::tiny_kv_server::TinyKvServer<()>>(), "tinykvpb.TinyKv");
    assert_eq!(name::<proto::etcdserverpb::kv_server::KvServer<()>>(), "etcdserverpb.KV");
    assert_eq!(name::<proto::health::health_server::HealthServer<()>>(), "grpc.health.v1.Health");
}
