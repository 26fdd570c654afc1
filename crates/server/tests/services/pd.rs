//! The scheduler's port as clients of PD, TinyScheduler and etcd see it, and over HTTP.

use crate::common::{cluster, dial, header, pd};
use proto::{
    etcdserverpb::{self, cluster_client::ClusterClient, kv_client::KvClient},
    health::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
    keyspacepb::{LoadKeyspaceRequest, keyspace_client::KeyspaceClient},
    pdpb,
};
use server::Server;
use tonic::Code;
use types::ApiMode;

#[tokio::test]
async fn members_have_what_clients_insist_on() {
    let server = cluster(ApiMode::V1).await;
    let answer = pd(&server)
        .await
        .get_members(pdpb::GetMembersRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_ne!(answer.header.expect("has a header").cluster_id, 0);
    let leader = answer.leader.expect("has a leader");
    assert_eq!(answer.members, std::slice::from_ref(&leader));
    assert_ne!(leader.member_id, 0);
    assert_eq!(leader.client_urls, [format!("http://{}", server.ready().scheduler.unwrap())]);
}

#[tokio::test]
async fn timestamps_grow_and_ids_never_repeat() {
    let server = cluster(ApiMode::V1).await;
    let mut pd = pd(&server).await;
    let request =
        |count| pdpb::TsoRequest { header: header(&server), count, ..pdpb::TsoRequest::default() };
    let mut answers = pd
        .tso(tokio_stream::iter([request(1), request(100), request(1)]))
        .await
        .unwrap()
        .into_inner();
    let mut last = (0, 0);
    for count in [1, 100, 1] {
        let answer = answers.message().await.unwrap().expect("one answer per request, in order");
        assert_eq!(answer.count, count);
        let timestamp = answer.timestamp.unwrap();
        assert!(timestamp.logical >= i64::from(count), "the first of the batch is not negative");
        assert!(last < (timestamp.physical, timestamp.logical - i64::from(count) + 1));
        last = (timestamp.physical, timestamp.logical);
    }
    let mut bad = pd.tso(tokio_stream::iter([request(0), request(1)])).await.unwrap().into_inner();
    assert_eq!(
        bad.message().await.unwrap_err().code(),
        Code::Unknown,
        "a count of 0 ends the stream"
    );

    let mut ids = Vec::new();
    for count in [0, 1, 5] {
        let answer = pd
            .alloc_id(pdpb::AllocIdRequest { header: header(&server), count })
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.count, count.max(1));
        ids.extend(answer.id - u64::from(answer.count) + 1..=answer.id);
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[tokio::test]
async fn regions_and_stores_are_found() {
    for (api, regions) in [(ApiMode::V1, 1), (ApiMode::V2, 5)] {
        let server = cluster(api).await;
        let mut pd = pd(&server).await;
        let scan = pdpb::ScanRegionsRequest {
            header: header(&server),
            ..pdpb::ScanRegionsRequest::default()
        };
        let answer = pd.scan_regions(scan).await.unwrap().into_inner();
        assert_eq!(
            (answer.regions.len(), answer.region_metas.len(), answer.leaders.len()),
            (regions, regions, regions)
        );
        assert!(
            answer.regions.iter().all(|region| region.leader.is_some()),
            "clients give up without a leader"
        );
        let mut end = bytes::Bytes::new();
        for region in &answer.region_metas {
            assert_eq!(region.start_key, end, "no hole, no overlap");
            assert!(region.region_epoch.is_some());
            end = region.end_key.clone();
        }
        assert!(end.is_empty());

        let id = answer.region_metas[0].id;
        let by_id = pdpb::GetRegionByIdRequest {
            header: header(&server),
            region_id: id,
            need_buckets: false,
        };
        assert_eq!(pd.get_region_by_id(by_id).await.unwrap().into_inner().region.unwrap().id, id);

        let query = pdpb::QueryRegionRequest {
            header: header(&server),
            keys: vec!["".into(), "~".into()],
            ids: vec![id, 999_999],
            ..pdpb::QueryRegionRequest::default()
        };
        let mut answers = pd.query_region(tokio_stream::iter([query])).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.key_id_map.len(), 2);
        assert!(answer.key_id_map.iter().all(|id| answer.regions_by_id.contains_key(id)));

        let all =
            pdpb::GetAllStoresRequest { header: header(&server), exclude_tombstone_stores: true };
        let stores = pd.get_all_stores(all).await.unwrap().into_inner().stores;
        assert_eq!(stores.len(), 1);
        assert_eq!(stores[0].address, server.ready().store().unwrap().to_string());
        let one = pdpb::GetStoreRequest { header: header(&server), store_id: stores[0].id };
        assert_eq!(pd.get_store(one).await.unwrap().into_inner().store.unwrap().id, stores[0].id);
        let none = pdpb::GetStoreRequest { header: header(&server), store_id: 4711 };
        assert_eq!(pd.get_store(none).await.unwrap_err().code(), Code::Unknown);
    }
}

#[tokio::test]
async fn another_clusters_requests_are_refused() {
    let server = cluster(ApiMode::V1).await;
    let header = Some(pdpb::RequestHeader { cluster_id: 1, ..pdpb::RequestHeader::default() });
    let status =
        pd(&server).await.alloc_id(pdpb::AllocIdRequest { header, count: 1 }).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("mismatch cluster id"), "{status}");
}

#[tokio::test]
async fn the_courses_scheduler_is_the_same_service() {
    let server = cluster(ApiMode::V1).await;
    let mut grpc = tonic::client::Grpc::new(dial(server.ready().scheduler).await);
    grpc.ready().await.unwrap();
    let path = "/schedulerpb.Scheduler/IsBootstrapped".parse().unwrap();
    let request = tonic::Request::new(pdpb::IsBootstrappedRequest { header: header(&server) });
    let answer: tonic::Response<pdpb::IsBootstrappedResponse> =
        grpc.unary(request, path, tonic_prost::ProstCodec::default()).await.unwrap();
    assert!(answer.into_inner().bootstrapped);
}

#[tokio::test]
async fn etcd_health_and_keyspaces_answer_on_the_same_port() {
    let server = cluster(ApiMode::V2).await;
    let channel = dial(server.ready().scheduler).await;
    let range = || etcdserverpb::RangeRequest {
        key: "/tidb/store/gcworker/saved_safe_point".into(),
        ..etcdserverpb::RangeRequest::default()
    };
    let mut etcd = KvClient::new(channel.clone());
    let empty = etcd.range(range()).await.unwrap().into_inner();
    assert!(empty.kvs.is_empty() && empty.header.is_some());
    let update = pdpb::UpdateGcSafePointRequest { header: header(&server), safe_point: 12345 };
    pd(&server).await.update_gc_safe_point(update).await.unwrap();
    assert_eq!(etcd.range(range()).await.unwrap().into_inner().kvs[0].value, "12345");
    let members = ClusterClient::new(channel.clone())
        .member_list(etcdserverpb::MemberListRequest::default())
        .await;
    assert_eq!(members.unwrap().into_inner().members.len(), 1);

    for channel in [channel.clone(), dial(server.ready().store()).await] {
        let status = HealthClient::new(channel)
            .check(HealthCheckRequest::default())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(status.status(), ServingStatus::Serving);
    }

    let mut keyspaces = KeyspaceClient::new(channel);
    let load = |name: &str| LoadKeyspaceRequest {
        header: header(&server),
        name: name.to_owned(),
        ..Default::default()
    };
    assert!(
        keyspaces.load_keyspace(load("DEFAULT")).await.unwrap().into_inner().keyspace.is_some()
    );
    let unknown = keyspaces.load_keyspace(load("other")).await.unwrap().into_inner();
    let error = unknown.header.unwrap().error.unwrap();
    assert_eq!(error.r#type(), pdpb::ErrorType::EntryNotFound);
}

/// What a GET answers: status and body.
async fn http(addr: Option<std::net::SocketAddr>, path: &str) -> (u16, String) {
    crate::common::http(addr, "GET", path, "").await
}

async fn json(server: &Server, path: &str) -> serde_json::Value {
    let (status, body) = http(server.ready().scheduler, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn http_shares_the_port_with_grpc() {
    let server = cluster(ApiMode::V2).await;
    let regions = json(&server, "/pd/api/v1/regions").await;
    assert_eq!(
        (regions["count"].as_u64(), regions["regions"].as_array().map(Vec::len)),
        (Some(5), Some(5))
    );
    assert_eq!(json(&server, "/pd/api/v1/stores").await["count"], 1);
    assert_eq!(json(&server, "/pd/api/v1/health").await[0]["health"], true);
    assert_eq!(json(&server, "/pd/api/v1/members").await["members"][0]["name"], "tinykv");
    assert!(
        json(&server, "/pd/api/v1/version").await["version"].as_str().unwrap().starts_with('v')
    );
    assert_eq!(json(&server, "/api/v1/errors/TK4101").await["code"], "TK4101");

    for addr in [server.ready().scheduler, server.ready().status()] {
        assert_eq!(http(addr, "/livez").await, (200, "ok\n".to_owned()));
        assert_eq!(http(addr, "/readyz").await, (200, "ok\n".to_owned()));
        let (status, metrics) = http(addr, "/metrics").await;
        assert!(status == 200 && metrics.contains("process_resident_memory_bytes"), "{metrics}");
        assert_eq!(http(addr, "/nonsense").await.0, 404);
    }
    assert!(
        http(server.ready().status(), "/metrics").await.1.contains("tinykv_storage_syncs_total")
    );
    let config: serde_json::Value =
        serde_json::from_str(&http(server.ready().status(), "/config").await.1).unwrap();
    assert_eq!(config["storage"]["api-version"], 2);
}

#[tokio::test]
async fn heartbeats_are_taken_skipped_or_refused_one_by_one() {
    let server = cluster(ApiMode::V1).await;
    let mut pd = pd(&server).await;
    let found = pd
        .get_region(pdpb::GetRegionRequest { header: header(&server), ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    let (region, leader) = (found.region.expect("one region"), found.leader);
    let heartbeat = |region: Option<proto::metapb::Region>, leader, approximate_size| {
        pdpb::RegionHeartbeatRequest {
            header: header(&server),
            region,
            leader,
            approximate_size,
            ..Default::default()
        }
    };
    let mut older = region.clone();
    older.region_epoch.as_mut().expect("has an epoch").version = 0;
    let heartbeats = [
        // Of a leader on its way out: says nothing, and must not take the leader from clients.
        heartbeat(Some(region.clone()), None, 1),
        heartbeat(Some(older), leader, 2),
        heartbeat(None, leader, 3),
        heartbeat(Some(region.clone()), leader, 4 << 20),
    ];
    let mut answers =
        pd.region_heartbeat(tokio_stream::iter(heartbeats)).await.unwrap().into_inner();
    let mut refusals = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        refusals.push(answer.header.unwrap().error.expect("only errors are answered").message);
    }
    assert_eq!(refusals.len(), 2, "{refusals:?}");
    assert!(refusals[1].contains("the region is missing"), "{refusals:?}");

    let found = pd
        .get_region(pdpb::GetRegionRequest { header: header(&server), ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((found.region, found.leader), (Some(region), leader));
}

#[tokio::test]
async fn a_store_that_nobody_could_dial_is_refused() {
    let server = cluster(ApiMode::V1).await;
    let mut pd = pd(&server).await;
    for address in ["", "nonsense", "0.0.0.0:20160", "[::]:1", "host:0", "host:"] {
        let store =
            proto::metapb::Store { id: 50, address: address.to_owned(), ..Default::default() };
        let request = pdpb::PutStoreRequest { header: header(&server), store: Some(store) };
        let refusal = pd.put_store(request).await.unwrap_err();
        assert!(refusal.message().contains("invalid store address"), "{address}: {refusal}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_scattered_nor_healthy() {
    let server = cluster(ApiMode::V1).await;
    let mut pd = pd(&server).await;
    let scatter = |region_id| pdpb::ScatterRegionRequest {
        header: header(&server),
        region_id,
        ..Default::default()
    };
    let answer = pd.scatter_region(scatter(999)).await.unwrap().into_inner();
    let error = answer.header.unwrap().error.expect("there is no such region");
    assert_eq!(error.r#type(), pdpb::ErrorType::RegionNotFound);
    for (addr, known) in
        [(server.ready().store(), "tikvpb.Tikv"), (server.ready().scheduler, "pdpb.PD")]
    {
        let mut health = HealthClient::new(dial(addr).await);
        let mut check = async |service: &str| {
            health.check(HealthCheckRequest { service: service.to_owned() }).await
        };
        for service in ["", known] {
            assert_eq!(check(service).await.unwrap().into_inner().status(), ServingStatus::Serving);
        }
        assert_eq!(check("nobody.Knows").await.unwrap_err().code(), Code::NotFound);
    }
}
