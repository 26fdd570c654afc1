//! The sliver of etcd's API that clients of PD's port really use: `KV/Range` of one key and `Cluster/MemberList`.
//!
//! client-go and TinySQL read the GC safe point from a key of TiDB's every ten seconds and stop reading for good when
//! that fails for long. The key is answered from the scheduler's state; every other key is absent.

use proto::{
    etcdserverpb::{
        Member, MemberListRequest, MemberListResponse, RangeRequest, RangeResponse, ResponseHeader,
        cluster_server::Cluster, kv_server::Kv,
    },
    mvccpb::KeyValue,
    pdpb::{self, pd_server::Pd as _},
};
use tonic::{Request, Response, Status};

use super::pd::PdService;

/// Where TiDB keeps the GC safe point, as a decimal number.
const SAFE_POINT_KEY: &[u8] = b"/tidb/store/gcworker/saved_safe_point";

/// The service of a scheduler.
#[derive(Clone, Debug)]
pub(crate) struct EtcdService {
    pd: PdService,
}

impl EtcdService {
    pub(crate) fn new(pd: PdService) -> EtcdService {
        EtcdService { pd }
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.pd.cluster_id().0,
            member_id: self.pd.member().id,
            revision: 1,
            raft_term: 1,
        })
    }
}

#[tonic::async_trait]
impl Kv for EtcdService {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        if request.key.is_empty() {
            return Err(Status::invalid_argument("etcdserver: key is not provided"));
        }
        let covers = match &request.range_end[..] {
            [] => &request.key[..] == SAFE_POINT_KEY,
            // etcd's spelling of "no end".
            [0] => &request.key[..] <= SAFE_POINT_KEY,
            end => &request.key[..] <= SAFE_POINT_KEY && SAFE_POINT_KEY < end,
        };
        let mut kvs = Vec::new();
        if covers {
            let header = self.pd.request_header();
            let asked = self
                .pd
                .get_gc_safe_point(Request::new(pdpb::GetGcSafePointRequest { header }))
                .await?;
            let safe_point = asked.into_inner().safe_point;
            if safe_point > 0 {
                let value = if request.keys_only { String::new() } else { safe_point.to_string() };
                let (key, value) = (SAFE_POINT_KEY.into(), value.into());
                kvs.push(KeyValue {
                    key,
                    value,
                    create_revision: 1,
                    mod_revision: 1,
                    version: 1,
                    lease: 0,
                });
            }
        }
        let count = kvs.len() as i64;
        if request.count_only {
            kvs.clear();
        }
        Ok(Response::new(RangeResponse { header: self.header(), kvs, more: false, count }))
    }
}

#[tonic::async_trait]
impl Cluster for EtcdService {
    async fn member_list(
        &self,
        _: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let member = self.pd.member();
        let members = vec![Member {
            id: member.id,
            name: member.name.clone(),
            peer_ur_ls: vec![member.client_url()],
            client_ur_ls: vec![member.client_url()],
            is_learner: false,
        }];
        Ok(Response::new(MemberListResponse { header: self.header(), members }))
    }
}
