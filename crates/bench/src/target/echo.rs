//! The bare echo server as target: a child process of this executable, reached exactly as a store is.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    rc::Rc,
};

use super::{Servers, routes::Routes, tikv::TikvTarget};
use crate::{error::Error, keys::Dataset};

const PROGRAM: &str = "the echo server";

/// An echo server that ends with its owner.
#[derive(Debug)]
struct EchoProcess(Child);

impl Drop for EchoProcess {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts an echo server with so many worker threads (`None`: one per processor) and opens it.
pub(crate) fn open(
    dataset: Dataset,
    connections: usize,
    batch: Option<usize>,
    workers: Option<usize>,
) -> Result<TikvTarget, Error> {
    let failed = |reason: String| Error::Program { program: PROGRAM, reason };
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(program);
    command
        .args(["bench", "echo-server", "--listen", "127.0.0.1:0", "--until-stdin-ends"])
        .args(["--value-size", &dataset.value_bytes().to_string()])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if let Some(workers) = workers {
        command.args(["--workers", &workers.to_string()]);
    }
    let mut process = EchoProcess(command.spawn().map_err(|error| failed(error.to_string()))?);
    let stdout = process.0.stdout.take().expect("stdout is piped");
    let mut address = String::new();
    // It prints its address at once, or ends, which ends the pipe.
    BufReader::new(stdout).read_line(&mut address).map_err(|error| failed(error.to_string()))?;
    let address = address.trim().to_owned();
    if address.is_empty() {
        return Err(failed("it ended without printing its address".to_owned()));
    }
    let servers = Servers { pids: vec![process.0.id()], status: Vec::new() };
    target(address, servers, dataset, connections, batch, Some(Box::new(process)))
}

/// An echo server that listens at `address`.
pub(crate) fn target(
    address: String,
    servers: Servers,
    dataset: Dataset,
    connections: usize,
    batch: Option<usize>,
    owned: Option<Box<dyn std::any::Any>>,
) -> Result<TikvTarget, Error> {
    let routes = Routes::fixed(address, connections)?;
    let dataset = Rc::new(dataset.with_fixed_value());
    Ok(TikvTarget::new("echo", routes, servers, dataset, connections, batch, owned))
}
