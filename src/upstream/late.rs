//! Deadlines in a process that may be suspended.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

/// The longest extension of a deadline that was noticed late.
const GRACE: Duration = Duration::from_secs(2);

/// Awaits a future until a deadline. If the process was suspended over the deadline, an answer that
/// came in time is still unread when it resumes, so the deadline is extended by as much as it was
/// noticed late, up to [`GRACE`].
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
