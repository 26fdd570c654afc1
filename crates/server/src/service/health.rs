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
    /// The services of the port; the empty name stands for all of them.
    services: &'static [&'static str],
    phase: watch::Receiver<Phase>,
}

impl HealthService {
    pub(crate) fn new(
        services: &'static [&'static str],
        phase: watch::Receiver<Phase>,
    ) -> HealthService {
        HealthService { services, phase }
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
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !service.is_empty() && !self.services.contains(&service.as_str()) {
            return Err(Status::not_found(format!("there is no {service} here")));
        }
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
