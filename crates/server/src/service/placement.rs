//! `tinykv.internal.Placement`: what our own stores and clients ask beyond PD's calls.

use proto::internal::{
    self, GetClusterStateRequest, GetClusterStateResponse, LatchKeyModeRequest,
    LatchKeyModeResponse, placement_server::Placement,
};
use scheduler::{Error, SchedulerHandle};
use tonic::{Request, Response, Status};

use super::pd::{PdService, status};
use crate::convert;

/// The service of a scheduler.
#[derive(Clone, Debug)]
pub(crate) struct PlacementService {
    scheduler: SchedulerHandle,
    pd: PdService,
}

impl PlacementService {
    pub(crate) fn new(scheduler: SchedulerHandle, pd: PdService) -> PlacementService {
        PlacementService { scheduler, pd }
    }
}

#[tonic::async_trait]
impl Placement for PlacementService {
    async fn get_cluster_state(
        &self,
        request: Request<GetClusterStateRequest>,
    ) -> Result<Response<GetClusterStateResponse>, Status> {
        let wanted = request.into_inner().cluster_id;
        if wanted != 0 {
            self.pd.check_cluster(wanted)?;
        }
        // Before the first store there is nothing to latch.
        let key_mode = match self.scheduler.run(|scheduler, _| scheduler.key_mode()).await {
            Err(Error::NotBootstrapped) => None,
            key_mode => key_mode.map_err(status)?,
        };
        Ok(Response::new(GetClusterStateResponse {
            cluster_id: self.pd.cluster_id().0,
            api_mode: convert::api_mode_to_proto(self.scheduler.api_mode()).into(),
            key_mode: convert::key_mode_to_proto(key_mode).into(),
        }))
    }

    async fn latch_key_mode(
        &self,
        request: Request<LatchKeyModeRequest>,
    ) -> Result<Response<LatchKeyModeResponse>, Status> {
        let request = request.into_inner();
        self.pd.check_cluster(request.cluster_id)?;
        let Some(wanted) = convert::key_mode(request.wanted) else {
            return Err(Status::invalid_argument("the wanted key mode is missing"));
        };
        let decided = self
            .scheduler
            .run(|scheduler, _| scheduler.latch_key_mode(wanted))
            .await
            .map_err(status)?;
        let decided: internal::KeyMode = convert::key_mode_to_proto(Some(decided));
        Ok(Response::new(LatchKeyModeResponse { decided: decided.into() }))
    }
}
