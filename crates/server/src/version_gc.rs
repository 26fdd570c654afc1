//! Old versions go when the scheduler's safe point has moved: the timer of a store, and one pass over its regions at a time.

use std::time::Duration;

use storage::{Storage, VersionCollection};
use types::{ApiMode, TimeStamp};

use crate::{
    listen,
    placement::{Placement, PlacementError},
    server::Process,
    timer,
};

/// Asks for the safe point every `interval`, and removes what nobody needs under it. Ends when the process drains.
///
/// A pass that fails is made again with the next question. Regions that come to this store during a pass, behind it, are
/// collected with the next safe point.
pub(crate) async fn run(
    storage: Storage,
    placement: Placement,
    interval: Duration,
    process: Process,
) {
    let mut tick = timer::ticks(interval);
    let mut done = TimeStamp::ZERO;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = listen::until_draining(process.phase()) => return,
        }
        let safe_point = match placement.gc_safe_point().await {
            Ok(safe_point) => safe_point,
            Err(error) => {
                tracing::debug!(%error, code = %error.code, "the scheduler does not say the safe point");
                continue;
            }
        };
        if safe_point <= done {
            continue;
        }
        if let Err(error) = learn_key_mode(&storage, &placement).await {
            tracing::debug!(%error, code = %error.code, "the scheduler does not say the key mode");
            continue;
        }
        let mut pass = VersionCollection::new(&storage, safe_point);
        let mut keys = 0;
        while !pass.is_finished() {
            match pass.step(&storage).await {
                Ok(some) => keys += some,
                Err(error) => {
                    tracing::warn!(%safe_point, %error, code = %error.code(), "old versions could not be removed");
                    break;
                }
            }
            if *process.phase().borrow() != listen::Phase::Running {
                return;
            }
            tokio::task::yield_now().await;
        }
        if pass.is_finished() {
            done = safe_point;
            tracing::info!(%safe_point, keys, "old versions were removed");
        }
    }
}

/// A store whose regions came from others may not know that they hold transactional data.
async fn learn_key_mode(storage: &Storage, placement: &Placement) -> Result<(), PlacementError> {
    if storage.ident().api == ApiMode::V1
        && storage.key_mode().is_none()
        && let Some(held) = placement.cluster_state().await?.key_mode
    {
        storage.learn_key_mode(held);
    }
    Ok(())
}
