//! Compiles `/proto` into Rust, without protoc.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

const ROOT: &str = "../../proto";

/// Large messages that are absent most of the time. Fields of these types are boxed, so that a
/// request or a response that does without them stays small enough to move around.
const BOXED: [&str; 7] = [
    ".errorpb.Error",
    ".kvrpcpb.ExecDetails",
    ".kvrpcpb.ExecDetailsV2",
    ".kvrpcpb.KeyError",
    ".kvrpcpb.LockInfo",
    ".kvrpcpb.ResourceControlContext",
    ".kvrpcpb.SourceStmt",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");

    let mut files = protox::compile(sources()?, [ROOT])?;

    let mut builder = tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".") // the same message has the same bytes, in every run
        .build_transport(false) // connecting is the client crate's business
        .generate_default_stubs(true); // what we do not serve answers UNIMPLEMENTED

    for file in &mut files.file {
        // Section headings of the sources, which would end up in the doc of the next message.
        for location in file.source_code_info.iter_mut().flat_map(|info| &mut info.location) {
            location.leading_detached_comments.clear();
        }
        for message in &file.message_type {
            for field in &message.field {
                if BOXED.contains(&field.type_name()) && field.label != Some(REPEATED) {
                    let path = format!(".{}.{}.{}", file.package(), message.name(), field.name());
                    builder = builder.boxed(path);
                }
            }
        }
    }
    builder.compile_fds(files)?;
    Ok(())
}

/// `Label::LABEL_REPEATED` of descriptor.proto.
const REPEATED: i32 = 3;

/// Every .proto file below the root, sorted.
fn sources() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut sources = Vec::new();
    for folder in fs::read_dir(ROOT)? {
        let folder = folder?.path();
        if folder.is_dir() {
            for file in fs::read_dir(folder)? {
                sources.push(file?.path());
            }
        }
    }
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    sources.sort();
    Ok(sources)
}
