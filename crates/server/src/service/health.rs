//! `grpc.health.v1.Health`, on every gRPC port. client-go probes stores with it after a failed request.

use futures_util::{StreamExt, stream};
use proto::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status, codegen::BoxStream};

use crate::listen::{Phase, until_draining};

/// Says whether this process serves. It does until it drains.
#[derive(Clone, Debug)]
pub(crate) struct HealthService {
    phase: watch::Receiver<Phase>,
}

impl HealthService {
    pub(crate) fn new(phase: watch::Receiver<Phase>) -> HealthService {
        HealthService { phase }
    }

    fn status(&self) -> HealthCheckResponse {
        let status = match *self.phase.borrow() {
            Phase::Running => ServingStatus::Serving,
            Phase::Draining | Phase::Stopped => ServingStatus::NotServing,
        };
        HealthCheckResponse { status: status.into() }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(self.status()))
    }

    /// The status now, and once more when it changes; then the stream ends.
    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<BoxStream<HealthCheckResponse>>, Status> {
        let this = self.clone();
        let changed = stream::once(async move {
            until_draining(this.phase.clone()).await;
            Ok(this.status())
        });
        Ok(Response::new(
            stream::once(std::future::ready(Ok(self.status()))).chain(changed).boxed(),
        ))
    }
}
