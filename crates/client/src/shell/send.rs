//! One request to one store: protobuf there and back.

use proto::{OneFrame, errorpb, kvrpcpb as pb, tikvpb::tikv_client::TikvClient};
use tonic::{Code as GrpcCode, Status, transport::Channel};
use types::{Code, KeyRange, RegionError, RequestContext};

use super::{connections, convert, send_txn};
use crate::{
    Answer, Checksum, Direction, KeyLayout, Request, TimeToLive,
    request::{Failure, Reply, StoreError, Target},
};

/// Sends `request` and turns what comes back into a reply, or into a failure if nothing does.
pub(super) async fn to_store(
    connection: Channel,
    target: &Target,
    request: Request,
    layout: KeyLayout,
) -> Result<Reply, Failure> {
    // The size of an answer is bounded by what was asked for, not by gRPC's default of 4 MiB.
    let mut store = TikvClient::new(OneFrame(connection)).max_decoding_message_size(usize::MAX);
    let context = Some(convert::context(&target.context, layout));
    let answered = exchange(&mut store, context, request, &target.context).await;
    answered.or_else(|status| judge(&status).map(Err))
}

/// What a gRPC status means for the request.
fn judge(status: &Status) -> Result<StoreError, Failure> {
    if connections::is_transport(status) {
        return Err(connections::failure(status));
    }
    let (code, message) = convert::coded(status.message());
    match (status.code(), code) {
        // Clients take no other sign for "unknown" on a unary call, so the server sends it as unavailable.
        (_, Some(Code::Undetermined)) => {
            Ok(StoreError::Region(RegionError::Undetermined { reason: message }))
        }
        (GrpcCode::Unimplemented, _) => {
            Ok(StoreError::Refused { code: Code::Unsupported, message })
        }
        // Refused by the limit of a message's bytes, here or there, before anything was done.
        (GrpcCode::OutOfRange, _) => Ok(StoreError::Refused { code: Code::EntryTooLarge, message }),
        (GrpcCode::InvalidArgument | GrpcCode::FailedPrecondition, code) => {
            Ok(StoreError::Refused { code: code.unwrap_or(Code::InvalidRequest), message })
        }
        (GrpcCode::PermissionDenied | GrpcCode::Unauthenticated, _) => {
            Ok(StoreError::Refused { code: Code::Unsupported, message })
        }
        // Whatever else a server or a proxy says, the request may have gone through.
        _ => Err(Failure::NoAnswer(connections::reason(status))),
    }
}

/// What the errors of an answer say, if there are any. Every answer has a region error; most have a text as well.
fn check(
    region_error: Option<Box<errorpb::Error>>,
    error: &str,
    context: &RequestContext,
) -> Result<(), StoreError> {
    match region_error {
        Some(region_error) => Err(convert::region_error(*region_error, context)),
        None if error.is_empty() => Ok(()),
        None => Err(convert::refused(error)),
    }
}

async fn exchange(
    store: &mut TikvClient<OneFrame<Channel>>,
    context: Option<pb::Context>,
    request: Request,
    at: &RequestContext,
) -> Result<Reply, Status> {
    Ok(match request {
        Request::Txn(command) => {
            return send_txn::exchange(store, context.unwrap_or_default(), command, at).await;
        }
        Request::Get { cf, key } => {
            let request = pb::RawGetRequest { context, key, cf: cf.name().to_owned() };
            let answer = store.raw_get(request).await?.into_inner();
            check(answer.region_error, &answer.error, at)
                .map(|()| Answer::Value((!answer.not_found).then_some(answer.value)))
        }
        Request::BatchGet { cf, keys } => {
            let request = pb::RawBatchGetRequest { context, keys, cf: cf.name().to_owned() };
            let answer = store.raw_batch_get(request).await?.into_inner();
            check(answer.region_error, "", at)
                .and_then(|()| convert::pairs(answer.pairs))
                .map(Answer::Pairs)
        }
        Request::Put { cf, key, value, ttl_secs: ttl } => {
            let cf = cf.name().to_owned();
            let request = pb::RawPutRequest { context, key, value, cf, ttl, for_cas: false };
            let answer = store.raw_put(request).await?.into_inner();
            check(answer.region_error, &answer.error, at).map(|()| Answer::Done)
        }
        Request::BatchPut { cf, pairs, ttl_secs } => {
            let request = pb::RawBatchPutRequest {
                context,
                pairs: pairs.into_iter().map(convert::pair_to_proto).collect(),
                cf: cf.name().to_owned(),
                // One for all pairs.
                ttls: if ttl_secs == 0 { Vec::new() } else { vec![ttl_secs] },
                ..pb::RawBatchPutRequest::default()
            };
            let answer = store.raw_batch_put(request).await?.into_inner();
            check(answer.region_error, &answer.error, at).map(|()| Answer::Done)
        }
        Request::Delete { cf, key } => {
            let request =
                pb::RawDeleteRequest { context, key, cf: cf.name().to_owned(), for_cas: false };
            let answer = store.raw_delete(request).await?.into_inner();
            check(answer.region_error, &answer.error, at).map(|()| Answer::Done)
        }
        Request::BatchDelete { cf, keys } => {
            let request = pb::RawBatchDeleteRequest {
                context,
                keys,
                cf: cf.name().to_owned(),
                for_cas: false,
            };
            let answer = store.raw_batch_delete(request).await?.into_inner();
            check(answer.region_error, &answer.error, at).map(|()| Answer::Done)
        }
        Request::DeleteRange { cf, range: KeyRange { start, end } } => {
            let cf = cf.name().to_owned();
            let request = pb::RawDeleteRangeRequest { context, start_key: start, end_key: end, cf };
            let answer = store.raw_delete_range(request).await?.into_inner();
            check(answer.region_error, &answer.error, at).map(|()| Answer::Done)
        }
        Request::Scan { cf, range, limit, keys_only, direction } => {
            // In reverse the wire's "start" is the upper bound.
            let (start_key, end_key, reverse) = match direction {
                Direction::Forward => (range.start, range.end, false),
                Direction::Reverse => (range.end, range.start, true),
            };
            let request = pb::RawScanRequest {
                context,
                start_key,
                end_key,
                limit: u32::try_from(limit).unwrap_or(u32::MAX),
                key_only: keys_only,
                cf: cf.name().to_owned(),
                reverse,
            };
            let answer = store.raw_scan(request).await?.into_inner();
            check(answer.region_error, "", at)
                .and_then(|()| convert::pairs(answer.kvs))
                .map(Answer::Pairs)
        }
        Request::CompareAndSwap { cf, key, expected, new, ttl_secs: ttl } => {
            let request = pb::RawCasRequest {
                context,
                key,
                previous_not_exist: expected.is_none(),
                previous_value: expected.unwrap_or_default(),
                delete: new.is_none(),
                value: new.unwrap_or_default(),
                cf: cf.name().to_owned(),
                ttl,
            };
            let answer = store.raw_compare_and_swap(request).await?.into_inner();
            check(answer.region_error, &answer.error, at).map(|()| Answer::Swapped {
                swapped: answer.succeed,
                previous: (!answer.previous_not_exist).then_some(answer.previous_value),
            })
        }
        Request::Ttl { cf, key } => {
            let request = pb::RawGetKeyTtlRequest { context, key, cf: cf.name().to_owned() };
            let answer = store.raw_get_key_ttl(request).await?.into_inner();
            check(answer.region_error, &answer.error, at).map(|()| {
                Answer::Ttl(match answer.ttl {
                    _ if answer.not_found => TimeToLive::NotFound,
                    0 => TimeToLive::Forever,
                    seconds => TimeToLive::Seconds(seconds),
                })
            })
        }
        Request::Checksum { range: KeyRange { start, end } } => {
            let ranges = vec![pb::KeyRange { start_key: start, end_key: end }];
            let request =
                pb::RawChecksumRequest { context, ranges, ..pb::RawChecksumRequest::default() };
            let answer = store.raw_checksum(request).await?.into_inner();
            check(answer.region_error, &answer.error, at).map(|()| {
                Answer::Checksum(Checksum {
                    crc64_xor: answer.checksum,
                    pairs: answer.total_kvs,
                    bytes: answer.total_bytes,
                })
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_judged_by_whether_the_request_may_have_gone_through() {
        assert_eq!(
            judge(&Status::unimplemented("")),
            Ok(StoreError::Refused { code: Code::Unsupported, message: String::new() })
        );
        let undetermined = Status::unavailable("the store stopped [TK5009]; try: read the key");
        assert_eq!(
            judge(&undetermined),
            Ok(StoreError::Region(RegionError::Undetermined {
                reason: "the store stopped".to_owned()
            }))
        );
        for status in [
            Status::unavailable("draining"),
            Status::unknown("?"),
            Status::internal("?"),
            Status::cancelled("?"),
        ] {
            assert!(matches!(judge(&status), Err(Failure::NoAnswer(_))), "{status:?}");
        }
        assert!(matches!(
            judge(&Status::out_of_range("too large")),
            Ok(StoreError::Refused { .. })
        ));
    }
}
