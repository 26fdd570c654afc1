//! The wire: every message and service that a peer, a client or an operator can send us.
//!
//! All code here but [`OneFrame`] is generated from the `.proto` files in `/proto`, which are the
//! interface: names, numbers and types are those of TiKV, TinyKV and etcd, and must never change.
//! There is one module for each package; a service `X` has its server in `x_server::XServer` and its client in
//! `x_client::XClient`.
//!
//! Four choices hold for all of it (`build.rs`). Fields of type `bytes` are `Bytes`, slices of the
//! received buffer. Maps are ordered, so that a message always encodes to the same bytes. Large
//! messages that are mostly absent (region errors, key errors, locks, execution details) sit in a
//! box. Methods that a server does not implement answer UNIMPLEMENTED, as an older TiKV would.
//!
//! `schedulerpb.Scheduler` has no module: its messages are those of [`pdpb`], and the server
//! rewrites the path. Neither logs nor files contain these messages; their formats are our own.

#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub, unused_qualifications, elided_lifetimes_in_paths)]
#![allow(clippy::all, clippy::unwrap_used)]
#![allow(rustdoc::all)]

mod one_frame;

pub use one_frame::OneFrame;

pub mod apipb {
    tonic::include_proto!("apipb");
}

pub mod coprocessor {
    tonic::include_proto!("coprocessor");
}

pub mod deadlock {
    tonic::include_proto!("deadlock");
}

pub mod encryptionpb {
    tonic::include_proto!("encryptionpb");
}

pub mod eraftpb {
    tonic::include_proto!("eraftpb");
}

pub mod errorpb {
    tonic::include_proto!("errorpb");
}

pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

pub mod keyspacepb {
    tonic::include_proto!("keyspacepb");
}

pub mod kvrpcpb {
    tonic::include_proto!("kvrpcpb");
}

pub mod metapb {
    tonic::include_proto!("metapb");
}

pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

pub mod pdpb {
    tonic::include_proto!("pdpb");
}

pub mod replication_modepb {
    tonic::include_proto!("replication_modepb");
}

pub mod resource_manager {
    tonic::include_proto!("resource_manager");
}

pub mod tikvpb {
    tonic::include_proto!("tikvpb");
}

pub mod tinykvpb {
    tonic::include_proto!("tinykvpb");
}

pub mod tracepb {
    tonic::include_proto!("tracepb");
}

pub mod tinykv {
    /// TinyKV's four messages that differ from those in [`kvrpcpb`](crate::kvrpcpb) of the same name.
    pub mod kvrpc {
        tonic::include_proto!("tinykv.kvrpc");
    }

    /// What our own processes say to each other beyond PD's and TiKV's calls.
    pub mod internal {
        tonic::include_proto!("tinykv.internal");
    }
}

pub use tinykv::internal;

/// Package `grpc.health.v1`.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
