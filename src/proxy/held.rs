//! Answers about jobs that other clients hold: nothing of them is shown but what is public.

use jiff::Timestamp;

use super::{error::CallError, parts::Proxy};
use crate::{
    action::{About, Needs},
    job_list,
    operation::Operation,
    types::Slug,
    upstream::Answer,
};

impl Proxy {
    /// Withholds from an answer what clients other than the one that asks hold. An admin sees all.
    ///
    /// # Errors
    /// The whole answer is about a job that another client holds, or it cannot be told what it is about.
    pub(super) async fn withhold_held(
        &self,
        operation: &Operation,
        answer: &mut Answer,
    ) -> Result<(), CallError> {
        let action = operation.action();
        if operation.client.admin {
            return Ok(());
        }
        match operation.job() {
            Some(job) if action.needs != Needs::Nothing && !action.changes() => {
                self.check_holder(operation, job).await
            }
            None if action.about == About::Job => self.withhold_from_list(operation, answer).await,
            _ => Ok(()),
        }
    }

    /// Another client may have reserved the job while the upstream was asked, and the answer may contain
    /// private instructions.
    async fn check_holder(&self, operation: &Operation, job: &Slug) -> Result<(), CallError> {
        let Operation { client, wallet, .. } = operation;
        let holder = self.store.holder(*wallet, job, client.id, Timestamp::now()).await?;
        if holder.is_none_or(|holder| holder == client.id) {
            return Ok(());
        }
        Err(CallError::HeldMeanwhile(job.clone()))
    }

    /// Leaves no more than the public fields of listed jobs that other clients hold: the list has the
    /// wallet's own jobs, whichever client reserved them.
    async fn withhold_from_list(
        &self,
        operation: &Operation,
        answer: &mut Answer,
    ) -> Result<(), CallError> {
        let Operation { client, wallet, .. } = operation;
        // Most often others hold nothing, and the answer need not be read.
        if !self.store.others_hold(client.id).await? {
            return Ok(());
        }
        let ids = job_list::ids(&answer.body).ok_or(CallError::Unchecked)?;
        let held = self.store.held_by_others(*wallet, ids, client.id, Timestamp::now()).await?;
        if let Some(body) = job_list::with_public_fields_of(&answer.body, &held) {
            answer.body = body;
        }
        Ok(())
    }
}
