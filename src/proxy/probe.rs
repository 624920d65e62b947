//! Something that is asked now and then, for all who want to know.

use std::time::Duration;

use tokio::{sync::Mutex, time::Instant};

/// A question whose last answer counts for a while. Those who ask meanwhile wait for the same answer.
#[derive(Debug)]
pub(super) struct Probe {
    /// How long an answer counts.
    age: Duration,
    last: Mutex<Option<(Instant, bool)>>,
}

impl Probe {
    pub(super) fn new(age: Duration) -> Self {
        Self { age, last: Mutex::default() }
    }

    /// The last answer, or a new one if that is too old.
    pub(super) async fn ask(&self, question: impl Future<Output = bool>) -> bool {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = *last
            && at.elapsed() < self.age
        {
            return answer;
        }
        let answer = question.await;
        *last = Some((Instant::now(), answer));
        answer
    }
}
