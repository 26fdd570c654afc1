//! The data commands in transactions: inside one that was begun, or each in one of its own.

use std::io::Write;

use client::{Error, Transaction, TxnClient};
use types::Code;

use super::{
    CliError, Format,
    data::{self, Op, Source},
};

/// Performs a data command in a transaction and prints its result. Returns how many pairs that was.
///
/// # Errors
/// As of the transaction; the commands that are transactions of their own.
pub(super) async fn perform(
    op: &Op,
    txn: &mut Transaction,
    format: Format,
    out: &mut impl Write,
) -> Result<usize, CliError> {
    match op.clone() {
        Op::Get { key } => {
            let value = txn.get(key.clone()).await?.ok_or_else(|| data::not_found(&key))?;
            data::write_value(out, format, &key, &value)?;
            Ok(1)
        }
        Op::Put { key, value, ttl: None } => {
            txn.put(key, value).await?;
            Ok(1)
        }
        Op::Delete { key } => {
            txn.delete(key).await?;
            Ok(1)
        }
        Op::Scan { range, limit, direction, keys_only } => {
            let source = Source::Txn(txn);
            data::scan_pages(source, range, limit, direction, keys_only, format, out).await
        }
        Op::Put { ttl: Some(_), .. } | Op::Ttl { .. } => {
            Err(raw_only("transactional keys have no time to live"))
        }
        Op::Cas { .. } => Err(raw_only("cas is for raw keys; a transaction gets and puts")),
    }
}

/// Performs a data command in a transaction of its own.
///
/// # Errors
/// As [`perform`], and of the commit.
pub(super) async fn perform_alone(
    op: &Op,
    txns: &TxnClient,
    format: Format,
    out: &mut impl Write,
) -> Result<usize, CliError> {
    let mut txn = txns.begin().await?;
    let pairs = perform(op, &mut txn, format, out).await?;
    commit(txn, txns).await?;
    Ok(pairs)
}

/// Commits, and leaves no lock to whoever comes next.
pub(super) async fn commit(
    txn: Transaction,
    txns: &TxnClient,
) -> Result<Option<types::TimeStamp>, Error> {
    let result = txn.commit().await;
    txns.idle().await;
    result
}

fn raw_only(message: &str) -> CliError {
    CliError::new(Code::Unsupported, message)
        .with_cause("The command works on raw keys only.")
        .with_remedy("--raw, or in the shell \\raw, if this cluster holds raw data")
}
