//! Which service answers a request, by the prefix of its path. One mux per listening socket.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, Either, FutureExt};
use http::{HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use proto::{
    deadlock::deadlock_server::DeadlockServer,
    etcdserverpb::{cluster_server::ClusterServer, kv_server::KvServer},
    health::health_server::HealthServer,
    internal::{placement_server::PlacementServer, store_transport_server::StoreTransportServer},
    keyspacepb::keyspace_server::KeyspaceServer,
    pdpb::pd_server::PdServer,
    tikvpb::tikv_server::TikvServer,
    tinykvpb::tiny_kv_server::TinyKvServer,
};
use tonic::{Status, body::Body};
use tower::Service;

use crate::service::{
    deadlock::DeadlockService, etcd::EtcdService, health::HealthService, keyspace::KeyspaceService,
    pd::PdService, placement::PlacementService, tikv::TikvService, tinykv::TinyKvService,
};
use crate::transport::Receiver;

type Answer = Response<Body>;
type Answering =
    Either<BoxFuture<'static, Result<Answer, Infallible>>, Ready<Result<Answer, Infallible>>>;

/// The services on a store's port.
#[derive(Clone, Debug)]
pub(crate) struct StoreMux {
    pub(crate) tikv: TikvServer<TikvService>,
    pub(crate) tinykv: TinyKvServer<TinyKvService>,
    pub(crate) deadlock: DeadlockServer<DeadlockService>,
    pub(crate) transport: StoreTransportServer<Receiver>,
    pub(crate) health: HealthServer<HealthService>,
}

impl StoreMux {
    /// What a client may ask the health of.
    pub(crate) const SERVICES: &[&str] = &["tikvpb.Tikv", "tinykvpb.TinyKv"];
}

impl Service<Request<Incoming>> for StoreMux {
    type Response = Answer;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Answering {
        match service_of(&request) {
            "tikvpb.Tikv" => Either::Left(self.tikv.call(request)),
            "tinykvpb.TinyKv" => Either::Left(self.tinykv.call(request)),
            "deadlock.Deadlock" => Either::Left(self.deadlock.call(request)),
            "tinykv.internal.StoreTransport" => Either::Left(self.transport.call(request)),
            "grpc.health.v1.Health" => Either::Left(self.health.call(request)),
            _ => Either::Right(ready(Ok(unimplemented_service(&request)))),
        }
    }
}

/// The services on a scheduler's port: gRPC by path, everything else is HTTP.
#[derive(Clone, Debug)]
pub(crate) struct SchedulerMux {
    pub(crate) pd: PdServer<PdService>,
    pub(crate) keyspace: KeyspaceServer<KeyspaceService>,
    pub(crate) etcd_kv: KvServer<EtcdService>,
    pub(crate) etcd_cluster: ClusterServer<EtcdService>,
    pub(crate) placement: PlacementServer<PlacementService>,
    pub(crate) health: HealthServer<HealthService>,
    pub(crate) http: axum::Router,
}

impl SchedulerMux {
    /// What a client may ask the health of.
    pub(crate) const SERVICES: &[&str] = &[
        "pdpb.PD",
        "schedulerpb.Scheduler",
        "keyspacepb.Keyspace",
        "etcdserverpb.KV",
        "etcdserverpb.Cluster",
    ];
}

impl Service<Request<Incoming>> for SchedulerMux {
    type Response = Answer;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Answering {
        match service_of(&request) {
            "pdpb.PD" => Either::Left(self.pd.call(request)),
            // The course's scheduler: the same messages under another name.
            "schedulerpb.Scheduler" => {
                rename_service(&mut request, "pdpb.PD");
                Either::Left(self.pd.call(request))
            }
            "keyspacepb.Keyspace" => Either::Left(self.keyspace.call(request)),
            "etcdserverpb.KV" => Either::Left(self.etcd_kv.call(request)),
            "etcdserverpb.Cluster" => Either::Left(self.etcd_cluster.call(request)),
            "tinykv.internal.Placement" => Either::Left(self.placement.call(request)),
            "grpc.health.v1.Health" => Either::Left(self.health.call(request)),
            _ if is_grpc(&request) => Either::Right(ready(Ok(unimplemented_service(&request)))),
            _ => Either::Left(http(self.http.clone(), request)),
        }
    }
}

/// A mux of HTTP alone, for the status port of a store.
#[derive(Clone, Debug)]
pub(crate) struct HttpMux(pub(crate) axum::Router);

impl Service<Request<Incoming>> for HttpMux {
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        http(self.0.clone(), request)
    }
}

fn http(
    mut router: axum::Router,
    request: Request<Incoming>,
) -> BoxFuture<'static, Result<Answer, Infallible>> {
    async move { router.call(request).await.map(|answer| answer.map(Body::new)) }.boxed()
}

/// The service in the path of a gRPC request: `/package.Service/Method`.
fn service_of<B>(request: &Request<B>) -> &str {
    request
        .uri()
        .path()
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .map_or("", |(service, _)| service)
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|content_type| content_type.as_bytes().starts_with(b"application/grpc"))
}

fn unimplemented_service<B>(request: &Request<B>) -> Answer {
    Status::unimplemented(format!("there is no {} here", request.uri().path())).into_http()
}

/// Puts another service's name into the path. The generated servers compare whole paths.
fn rename_service<B>(request: &mut Request<B>, service: &str) {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default();
    let Ok(path) = HeaderValue::try_from(format!("/{service}/{method}")) else { return };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = path.to_str().ok().and_then(|path| path.parse().ok());
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_path() {
        let request = |path: &str| Request::builder().uri(path).body(()).unwrap();
        assert_eq!(service_of(&request("/tikvpb.Tikv/RawGet")), "tikvpb.Tikv");
        assert_eq!(service_of(&request("http://host:1/tikvpb.Tikv/RawGet")), "tikvpb.Tikv");
        assert_eq!(service_of(&request("/metrics")), "");
    }

    #[test]
    fn a_renamed_service_keeps_its_method() {
        for uri in ["/schedulerpb.Scheduler/Tso", "http://127.0.0.1:2379/schedulerpb.Scheduler/Tso"]
        {
            let mut request = Request::builder().uri(uri).body(()).unwrap();
            rename_service(&mut request, "pdpb.PD");
            assert_eq!(request.uri().path(), "/pdpb.PD/Tso");
        }
    }
}
