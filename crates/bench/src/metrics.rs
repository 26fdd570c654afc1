//! Counters that servers offer: how often they synced a file.
//!
//! One HTTP/1.0 request per reading, by hand: the answer is Prometheus text and a line of it is all that is wanted.
//! Best effort, as in [`crate::process`]: no answer means that the figure is unknown.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Counters of syncs: our own, and the one that etcd's histogram of its log's syncs implies.
const SYNC_COUNTERS: [&str; 2] =
    ["tinykv_storage_syncs_total", "etcd_disk_wal_fsync_duration_seconds_count"];

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The syncs of all these servers together; `None` if one of them does not say.
pub(crate) async fn syncs(addresses: &[String]) -> Option<f64> {
    let mut sum = 0.0;
    for address in addresses {
        let text = timeout(TIMEOUT, fetch(address)).await.ok()?.ok()?;
        sum += SYNC_COUNTERS.iter().find_map(|name| counter(&text, name))?;
    }
    (!addresses.is_empty()).then_some(sum)
}

async fn fetch(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The sum of a counter over all its labels.
fn counter(text: &str, name: &str) -> Option<f64> {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = match rest.strip_prefix('{') {
                Some(labels) => labels.rsplit_once('}')?.1,
                None => rest.strip_prefix(' ')?,
            };
            value.split_ascii_whitespace().next()?.parse::<f64>().ok()
        })
        .reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels() {
        let text = "# HELP tinykv_storage_syncs_total Syncs.\n# TYPE tinykv_storage_syncs_total counter\n\
            tinykv_storage_syncs_total{store=\"1\",what=\"a}b\"} 40\ntinykv_storage_syncs_total{store=\"2\"} 2 1700000000\n\
            tinykv_storage_syncs_total_other 1000\nplain_total 7\n";
        assert_eq!(counter(text, "tinykv_storage_syncs_total"), Some(42.0));
        assert_eq!(counter(text, "plain_total"), Some(7.0));
        assert_eq!(counter(text, "missing_total"), None);
    }
}
