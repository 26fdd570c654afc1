//! Requests encoded by hand, and the codec that sends them.
//!
//! A request of the generated types is a value of 430 bytes (600 in a batch) that is built, moved through a dozen
//! layers and walked twice to be encoded; that was a third of this client's own work. Here a request is written to
//! bytes at once, with the context, which is the same for all requests of a region, encoded beforehand. Answers are
//! decoded by the generated code.
//!
//! The codec differs from the usual one in its buffers: those of a small request come from the allocator's fast path.
//! All targets use it, etcd with generated messages.
//!
//! The tests hold the bytes to those of the generated encoder.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use prost::Message;
use proto::{OneFrame, kvrpcpb};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

use super::OpError;
use crate::workload::Op;

// Field numbers of the messages (proto/tikv/{tikvpb,kvrpcpb}.proto).
const BATCH_REQUESTS: u32 = 1;
const BATCH_REQUEST_IDS: u32 = 2;
const COMMAND_RAW_GET: u32 = 13;
const COMMAND_RAW_PUT: u32 = 15;
const COMMAND_RAW_SCAN: u32 = 19;
const CONTEXT: u32 = 1;
const KEY: u32 = 2;
const VALUE: u32 = 3;
const SCAN_LIMIT: u32 = 3;
const SCAN_END_KEY: u32 = 7;

/// Field number and kind, as they stand before every field.
const fn tag(field: u32, kind: u32) -> u64 {
    (field << 3 | kind) as u64
}

const VARINT: u32 = 0;
const LENGTH: u32 = 2;

/// What goes out as one message.
pub(super) trait Outgoing: Send + Sync + 'static {
    /// Appends the message's bytes.
    fn write(&self, out: &mut EncodeBuf<'_>);
}

impl<M: Message + 'static> Outgoing for M {
    fn write(&self, out: &mut EncodeBuf<'_>) {
        self.encode(out).expect("an encode buffer grows as needed");
    }
}

/// A request of its own.
#[derive(Debug)]
pub(super) struct EncodedOp(Vec<u8>);

impl EncodedOp {
    /// Encodes a request. `context` comes from [`context_field`]; a scan ends before `scan_end`.
    pub(super) fn new(context: &[u8], op: &Op, scan_end: &[u8]) -> EncodedOp {
        let mut bytes = Vec::with_capacity(context.len() + fields_len(op, scan_end));
        bytes.put_slice(context);
        put_fields(op, scan_end, &mut bytes);
        EncodedOp(bytes)
    }
}

impl Outgoing for EncodedOp {
    fn write(&self, out: &mut EncodeBuf<'_>) {
        out.put_slice(&self.0);
    }
}

/// A `BatchCommandsRequest` under construction.
#[derive(Debug, Default)]
pub(super) struct BatchMessage {
    requests: Vec<u8>,
    ids: Vec<u64>,
}

impl BatchMessage {
    /// A message that will carry so many requests.
    pub(super) fn with_capacity(requests: usize) -> BatchMessage {
        /// A get with its context; what puts need beyond grows.
        const TYPICAL_BYTES: usize = 128;
        let (bytes, ids) = (requests * TYPICAL_BYTES, requests);
        BatchMessage { requests: Vec::with_capacity(bytes), ids: Vec::with_capacity(ids) }
    }

    /// Adds a request. `context` comes from [`context_field`]; a scan ends before `scan_end`.
    pub(super) fn push(&mut self, id: u64, context: &[u8], op: &Op, scan_end: &[u8]) {
        let command = match op {
            Op::Get { .. } => COMMAND_RAW_GET,
            Op::Put { .. } => COMMAND_RAW_PUT,
            Op::Scan { .. } => COMMAND_RAW_SCAN,
        };
        let command = tag(command, LENGTH);
        let length = (context.len() + fields_len(op, scan_end)) as u64;
        let out = &mut self.requests;
        put_varint(tag(BATCH_REQUESTS, LENGTH), out);
        put_varint((varint_len(command) + varint_len(length)) as u64 + length, out);
        put_varint(command, out);
        put_varint(length, out);
        out.put_slice(context);
        put_fields(op, scan_end, out);
        self.ids.push(id);
    }

    /// The ids of the requests.
    pub(super) fn ids(&self) -> &[u64] {
        &self.ids
    }

    fn put(&self, out: &mut impl BufMut) {
        out.put_slice(&self.requests);
        let ids: usize = self.ids.iter().map(|id| varint_len(*id)).sum();
        put_varint(tag(BATCH_REQUEST_IDS, LENGTH), out);
        put_varint(ids as u64, out);
        self.ids.iter().for_each(|id| put_varint(*id, out));
    }
}

impl Outgoing for BatchMessage {
    fn write(&self, out: &mut EncodeBuf<'_>) {
        self.put(out);
    }
}

/// Length of a request's fields, the context aside.
fn fields_len(op: &Op, scan_end: &[u8]) -> usize {
    match op {
        Op::Get { key } => bytes_len(KEY, key),
        Op::Put { key, value } => bytes_len(KEY, key) + bytes_len(VALUE, value),
        Op::Scan { start, limit } => {
            let limit = varint_len(tag(SCAN_LIMIT, VARINT)) + varint_len(u64::from(*limit));
            bytes_len(KEY, start) + limit + bytes_len(SCAN_END_KEY, scan_end)
        }
    }
}

/// Appends a request's fields, the context aside.
fn put_fields(op: &Op, scan_end: &[u8], out: &mut impl BufMut) {
    match op {
        Op::Get { key } => put_bytes(KEY, key, out),
        Op::Put { key, value } => {
            put_bytes(KEY, key, out);
            put_bytes(VALUE, value, out);
        }
        Op::Scan { start, limit } => {
            put_bytes(KEY, start, out);
            put_varint(tag(SCAN_LIMIT, VARINT), out);
            put_varint(u64::from(*limit), out);
            put_bytes(SCAN_END_KEY, scan_end, out);
        }
    }
}

/// A context as the field of a request.
pub(super) fn context_field(context: &kvrpcpb::Context) -> Bytes {
    let mut field = Vec::new();
    put_bytes(CONTEXT, &context.encode_to_vec(), &mut field);
    field.into()
}

fn put_varint(mut value: u64, out: &mut impl BufMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn varint_len(value: u64) -> usize {
    // Seven bits to a byte, and one byte for zero.
    ((63 - (value | 1).leading_zeros()) / 7 + 1) as usize
}

fn put_bytes(field: u32, bytes: &[u8], out: &mut impl BufMut) {
    put_varint(tag(field, LENGTH), out);
    put_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

fn bytes_len(field: u32, bytes: &[u8]) -> usize {
    varint_len(tag(field, LENGTH)) + varint_len(bytes.len() as u64) + bytes.len()
}

/// A client for unary calls. Frames are the same for all targets.
pub(super) type UnaryClient = Grpc<OneFrame<Channel>>;

/// Calls methods over `channel`.
pub(super) fn unary_client(channel: Channel) -> UnaryClient {
    Grpc::new(OneFrame(channel))
}

/// Calls a method. `path` is `/package.Service/Method`.
pub(super) async fn unary<E: Outgoing, D: Message + Default + 'static>(
    client: &mut UnaryClient,
    path: &'static str,
    message: E,
) -> Result<D, OpError> {
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    let response = client.unary(Request::new(message), path, WireCodec::default()).await?;
    Ok(response.into_inner())
}

/// Waits until a connection takes a stream.
pub(super) async fn ready(client: &mut Grpc<Channel>) -> Result<(), Status> {
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))
}

/// Sends messages of one type, receives generated ones of another.
#[derive(Debug)]
pub(super) struct WireCodec<E, D>(PhantomData<fn(E) -> D>);

impl<E, D> Default for WireCodec<E, D> {
    fn default() -> WireCodec<E, D> {
        WireCodec(PhantomData)
    }
}

/// Buffers begin small and grow: most messages are of this size.
fn buffer_settings() -> BufferSettings {
    const BUFFER_BYTES: usize = 512;
    const YIELD_BYTES: usize = 32 << 10;
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

impl<E: Outgoing, D: Message + Default + 'static> Codec for WireCodec<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = WireCodec<E, D>;
    type Decoder = WireCodec<E, D>;

    fn encoder(&mut self) -> WireCodec<E, D> {
        WireCodec::default()
    }

    fn decoder(&mut self) -> WireCodec<E, D> {
        WireCodec::default()
    }
}

impl<E: Outgoing, D> Encoder for WireCodec<E, D> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.write(out);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

impl<E, D: Message + Default> Decoder for WireCodec<E, D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        D::decode(buf).map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        metapb,
        tikvpb::{
            BatchCommandsRequest,
            batch_commands_request::{Request, request::Cmd},
        },
    };

    use super::*;

    fn context() -> kvrpcpb::Context {
        kvrpcpb::Context {
            region_id: 300,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 200 }),
            peer: Some(metapb::Peer { id: 7, store_id: 1, ..Default::default() }),
            api_version: kvrpcpb::ApiVersion::V2.into(),
            ..Default::default()
        }
    }

    #[test]
    fn messages_are_those_of_the_generated_encoder() {
        let key = Bytes::from_static(b"key of forty bytes, or nearly so, indeed");
        let value = Bytes::from(vec![7; 256]);
        let end = Bytes::from_static(b"z");
        let ops = [
            Op::Get { key: key.clone() },
            Op::Put { key: key.clone(), value: value.clone() },
            Op::Scan { start: key.clone(), limit: 300 },
        ];
        let ids = [0, 127, 5 << 32 | 128];

        let field = context_field(&context());
        let mut message = BatchMessage::with_capacity(1);
        for (id, op) in ids.into_iter().zip(&ops) {
            message.push(id, &field, op, &end);
        }
        assert_eq!(message.ids(), ids);
        let mut encoded = Vec::new();
        message.put(&mut encoded);

        let context = Some(context());
        let get = kvrpcpb::RawGetRequest {
            context: context.clone(),
            key: key.clone(),
            cf: String::new(),
        };
        let put = kvrpcpb::RawPutRequest {
            context: context.clone(),
            key: key.clone(),
            value,
            ..Default::default()
        };
        let scan = kvrpcpb::RawScanRequest {
            context,
            start_key: key,
            end_key: end.clone(),
            limit: 300,
            ..Default::default()
        };
        let single = |op| EncodedOp::new(&field, op, &end).0;
        assert_eq!(single(&ops[0]), get.encode_to_vec());
        assert_eq!(single(&ops[1]), put.encode_to_vec());
        assert_eq!(single(&ops[2]), scan.encode_to_vec());

        let requests = [Cmd::RawGet(get), Cmd::RawPut(put), Cmd::RawScan(scan)];
        let expected = BatchCommandsRequest {
            requests: requests.into_iter().map(|cmd| Request { cmd: Some(cmd) }).collect(),
            request_ids: ids.to_vec(),
            client_send_time_ns: 0,
        };
        assert_eq!(BatchCommandsRequest::decode(&encoded[..]).unwrap(), expected);
        assert_eq!(encoded, expected.encode_to_vec());
    }

    #[test]
    fn lengths_of_varints() {
        for bits in 0..64 {
            for value in [1_u64 << bits, (1_u64 << bits) - 1] {
                let mut out = Vec::new();
                put_varint(value, &mut out);
                assert_eq!(varint_len(value), out.len(), "{value}");
            }
        }
        assert_eq!(varint_len(u64::MAX), 10);
    }
}
