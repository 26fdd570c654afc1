//! A whole cluster in the test's process, and clients that speak the wire as foreign ones do.

use proto::{kvrpcpb, metapb, pdpb, pdpb::pd_client::PdClient, tikvpb::tikv_client::TikvClient};
use server::{Config, Roles, Server, config::EngineKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::{Channel, Endpoint};
use types::ApiMode;

/// A cluster that keeps nothing, on free ports.
pub(crate) async fn cluster(api: ApiMode) -> Server {
    cluster_with(api, |_| {}).await
}

/// The same, with other settings.
pub(crate) async fn cluster_with(api: ApiMode, change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config::default();
    config.scheduler.addr = "127.0.0.1:0".to_owned();
    config.server.addr = "127.0.0.1:0".to_owned();
    config.server.status_addr = "127.0.0.1:0".to_owned();
    config.storage.engine = EngineKind::Memory;
    config.storage.api = api;
    change(&mut config);
    let server = Server::start(config, Roles::ALL).await.expect("starts on free ports");
    let (mut pd, mut tikv) = (pd(&server).await, tikv(&server).await);
    while !serves(&server, &mut pd, &mut tikv).await {}
    server
}

/// Whether all keys have a leader that takes requests, and the store has reported itself.
async fn serves(
    server: &Server,
    pd: &mut PdClient<Channel>,
    tikv: &mut TikvClient<Channel>,
) -> bool {
    let scan = pdpb::ScanRegionsRequest { header: header(server), ..Default::default() };
    let regions = pd.scan_regions(scan).await.expect("is answered").into_inner().regions;
    let mut covered = false;
    for region in regions {
        let pdpb::Region { region: Some(region), leader: Some(peer), .. } = region else {
            return false;
        };
        covered = region.end_key.is_empty();
        let context = kvrpcpb::Context {
            region_id: region.id,
            region_epoch: region.region_epoch,
            peer: Some(peer),
            ..Default::default()
        };
        let key = [&region.start_key[..], b"\0"].concat().into();
        let get = kvrpcpb::RawGetRequest { context: Some(context), key, ..Default::default() };
        if tikv.raw_get(get).await.expect("is answered").into_inner().region_error.is_some() {
            return false;
        }
    }
    let all = pdpb::GetAllStoresRequest { header: header(server), ..Default::default() };
    let stores = pd.get_all_stores(all).await.expect("is answered").into_inner().stores;
    covered && stores.iter().all(|store| store.last_heartbeat > 0)
}

pub(crate) async fn dial(addr: Option<std::net::SocketAddr>) -> Channel {
    let uri = format!("http://{}", addr.expect("listens"));
    Endpoint::from_shared(uri).expect("is a URI").connect().await.expect("answers")
}

pub(crate) async fn tikv(server: &Server) -> TikvClient<Channel> {
    TikvClient::new(dial(server.ready().store()).await)
}

pub(crate) async fn pd(server: &Server) -> PdClient<Channel> {
    PdClient::new(dial(server.ready().scheduler).await)
}

pub(crate) fn header(server: &Server) -> Option<pdpb::RequestHeader> {
    Some(pdpb::RequestHeader {
        cluster_id: server.ready().cluster_id.0,
        ..pdpb::RequestHeader::default()
    })
}

/// The context of a key's region, as a client learns it.
pub(crate) async fn context(server: &Server, key: &[u8]) -> kvrpcpb::Context {
    let request = pdpb::GetRegionRequest {
        header: header(server),
        region_key: key.to_vec().into(),
        ..pdpb::GetRegionRequest::default()
    };
    let found = pd(server).await.get_region(request).await.expect("is answered").into_inner();
    let region: metapb::Region = found.region.expect("every key has a region");
    kvrpcpb::Context {
        region_id: region.id,
        region_epoch: region.region_epoch,
        peer: found.leader,
        ..kvrpcpb::Context::default()
    }
}

/// One HTTP/1.1 request: status and body of the answer.
pub(crate) async fn http(
    addr: Option<std::net::SocketAddr>,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String) {
    let mut stream =
        tokio::net::TcpStream::connect(addr.expect("listens")).await.expect("is there");
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n");
    let request = format!("{head}Connection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("has a head");
    let status = head.split(' ').nth(1).expect("has a status").parse();
    (status.expect("is a number"), body.to_owned())
}
