use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::sleep;
use tonic::{Code, Status};

/// Rides out a replica's restart.
const ATTEMPT_COUNT_MAX: u32 = 4;
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
const BACKOFF_MULTIPLIER: u32 = 3;

/// Makes a call again while the server is unavailable: four times in all, ever later. For `route`, `list_endpoints` and
/// `list_routers`, which change nothing; `complete` costs money, and an outcome must count once.
///
/// In other languages gRPC does so by itself; tonic leaves it to its caller. Each attempt has the deadline of its request.
///
/// ```text
/// let response = retried(async || client.clone().route(request.clone()).await).await?;
/// ```
///
/// # Errors
/// That of the last attempt.
pub async fn retried<T>(mut call: impl AsyncFnMut() -> Result<T, Status>) -> Result<T, Status> {
    let mut backoff = BACKOFF;
    for _ in 1..ATTEMPT_COUNT_MAX {
        match call().await {
            // gRPC answers CANCELLED for what reaches a server while it closes its port.
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Cancelled) => {}
            result => return result,
        }
        // A random share of the backoff, so that callers who failed together don't come back together.
        sleep(backoff.mul_f64(random())).await;
        backoff = (backoff * BACKOFF_MULTIPLIER).min(BACKOFF_MAX);
    }
    call().await
}

/// From 0 to 1: the keys of a hash map are random, and nothing else in std is.
fn random() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}
