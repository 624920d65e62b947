//! All jobs: the list, and the way to one of them by its id.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{json::Object, types::Address};

use super::{error::ApiError, form::Page, job::Job, seed::JOBS, settings::Settings};

/// The jobs, in the order in which they are listed.
pub(super) struct Board(Vec<Job>);

impl Board {
    pub(super) fn new(settings: &Settings) -> Self {
        let copy = |copy| JOBS.iter().map(move |seed| Job::new(seed, copy, settings));
        Self((1..=settings.copies).flat_map(copy).collect())
    }

    /// All jobs, as they were when each was last looked at.
    pub(super) fn jobs(&self) -> &[Job] {
        &self.0
    }

    /// The page of the open jobs and those that the wallet has reserved.
    pub(super) fn list(
        &mut self,
        body: &Object,
        wallet: Address,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let page = Page::read(body)?;
        self.0.iter_mut().for_each(|job| job.settle(now));
        let shown: Vec<&Job> = self.0.iter().filter(|job| job.is_shown_to(wallet)).collect();
        let jobs: Vec<_> = page.of(shown.iter()).map(|job| job.listing(now)).collect();
        Ok(json!({
            "jobs": jobs, "limit": page.limit, "skip": page.skip, "total": shown.len(),
        }))
    }

    /// The job as it is now.
    pub(super) fn job(&mut self, job_id: &str, now: Timestamp) -> Result<&mut Job, ApiError> {
        let job = self.0.iter_mut().find(|job| job.id == job_id).ok_or(ApiError::JobNotFound)?;
        job.settle(now);
        Ok(job)
    }
}

#[cfg(test)]
mod tests;
