//! All jobs: the list, and the way to one of them by its id.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{json::Object, types::Address};

use super::{error::ApiError, form::Form, job::Job, seed::JOBS, settings::Settings};

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

    /// The open jobs and those that the wallet has reserved, from `skip` on and at most `limit` of them.
    ///
    /// # Errors
    /// [`ApiError::Fields`] unless `limit` is 1 to 100 and `skip` at least 0.
    pub(super) fn list(
        &mut self,
        body: &Object,
        wallet: Address,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let mut form = Form::new(body);
        let limit = form.integer("limit", 1..=100);
        let skip = form.integer("skip", 0..=i64::MAX);
        let (limit, skip) = form.finish(limit.zip(skip))?;
        self.0.iter_mut().for_each(|job| job.settle(now));
        let shown: Vec<&Job> = self.0.iter().filter(|job| job.is_shown_to(wallet)).collect();
        // A number that does not fit is larger than every list.
        let number = |given: i64| usize::try_from(given).unwrap_or(usize::MAX);
        let page = shown.iter().skip(number(skip)).take(number(limit));
        let jobs: Vec<_> = page.map(|job| job.listing(now)).collect();
        Ok(json!({"jobs": jobs, "limit": limit, "skip": skip, "total": shown.len()}))
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
