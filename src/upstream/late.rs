//! Deadlines in a process that may be stopped.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

/// The most time that is given after a deadline that was noticed late.
const GRACE: Duration = Duration::from_secs(2);

/// What a future comes to by a deadline. If this process was stopped meanwhile, the deadline is
/// noticed as late as what has come in since: so much later there is still time to read it.
pub(super) async fn by<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    let is_late_already = deadline <= Instant::now();
    let mut future = pin!(future);
    if let Ok(value) = timeout_at(deadline, &mut future).await {
        return Some(value);
    }
    if is_late_already {
        return None;
    }
    timeout(deadline.elapsed().min(GRACE), future).await.ok()
}
