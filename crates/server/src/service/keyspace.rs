//! `keyspacepb.Keyspace`: names of keyspaces in API V2. There is one, DEFAULT.

use proto::{
    keyspacepb::{self, keyspace_server::Keyspace},
    pdpb,
};
use tonic::{Request, Response, Status};

use super::pd::PdService;

/// The service of a scheduler.
#[derive(Clone, Debug)]
pub(crate) struct KeyspaceService {
    pd: PdService,
}

impl KeyspaceService {
    pub(crate) fn new(pd: PdService) -> KeyspaceService {
        KeyspaceService { pd }
    }
}

#[tonic::async_trait]
impl Keyspace for KeyspaceService {
    async fn load_keyspace(
        &self,
        request: Request<keyspacepb::LoadKeyspaceRequest>,
    ) -> Result<Response<keyspacepb::LoadKeyspaceResponse>, Status> {
        let keyspacepb::LoadKeyspaceRequest { header, name, .. } = request.into_inner();
        self.pd.check_cluster(header.map_or(0, |header| header.cluster_id))?;
        let mut header = pdpb::ResponseHeader { cluster_id: self.pd.cluster_id().0, error: None };
        let keyspace = (name == "DEFAULT").then(|| keyspacepb::KeyspaceMeta {
            keyspace: Some(keyspacepb::keyspace_meta::Keyspace::Id(0)),
            name: name.clone(),
            state: keyspacepb::KeyspaceState::Enabled.into(),
            ..keyspacepb::KeyspaceMeta::default()
        });
        if keyspace.is_none() {
            let message =
                format!("there is no keyspace \"{name}\"; this version has DEFAULT alone");
            header.error =
                Some(pdpb::Error { r#type: pdpb::ErrorType::EntryNotFound.into(), message });
        }
        Ok(Response::new(keyspacepb::LoadKeyspaceResponse { header: Some(header), keyspace }))
    }
}
