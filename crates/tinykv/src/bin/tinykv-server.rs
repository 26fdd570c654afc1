//! `tinykv-server`: a store with the course's flags; see `tinykv-server -help`.
#![forbid(unsafe_code)]

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    tinykv::cli::course::tinykv_server()
}
