//! The jobs whose review clients wait for: each is asked after once for all of them, in the name of the one
//! that has waited longest.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::evidence::Evidence;
use crate::{
    job_status::JobStatus,
    retry::{self, is_put_off},
    store::OpenSubmission,
    types::{Address, RequestId, Slug},
    upstream::Answer,
    waiting::Pace,
};

/// The name of the call that shows a review.
pub(super) const STATUS: &str = "job_status";

/// How long the pace of a job is remembered after the last client has gone: most come back.
const REMEMBERED: Duration = Duration::from_secs(120);

/// For clients that only listen, a job is asked after when this much more time has passed since its proof
/// was submitted, and at least this often.
const PART_OF_AGE: u32 = 12;
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// No wish of the upstream puts a question off for longer.
const LONGEST_PUT_OFF: Duration = Duration::from_secs(3600);

/// How far apart the first questions for a client that begins to listen are.
const APART: Duration = Duration::from_millis(100);

/// The reviews that are waited for. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Reviews(Arc<Mutex<HashMap<ReviewKey, WatchedReview>>>);

/// The wallet, and the id of the job in lower case.
pub(super) type ReviewKey = (Address, String);

/// A client that a question is asked for.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) evidence: Arc<Evidence>,
    /// The id of its request.
    pub(super) call_id: RequestId,
    /// Since when it waits.
    since: Instant,
    /// Told when the question cannot be asked in its name.
    dismissed: Arc<Notify>,
}

/// A job whose review is waited for.
#[derive(Debug)]
struct WatchedReview {
    job: Slug,
    /// The clients whose requests wait, the oldest first.
    waiting: BTreeMap<u64, Asker>,
    /// A client that listens, and when the proof was submitted.
    listening: Option<(Asker, Timestamp)>,
    next: u64,
    /// When it was last asked, or the wait began.
    asked: Instant,
    is_new: bool,
    pace: Pace,
    /// The pause after that.
    pause: Duration,
    /// Whether a task asks.
    is_asked: bool,
    changed: Arc<Notify>,
    seen: watch::Sender<Option<Arc<SeenReview>>>,
}

/// An answer to all who wait.
#[derive(Debug)]
pub(super) struct SeenReview {
    pub(super) answer: Answer,
    pub(super) status: JobStatus,
    asked: Instant,
    /// The upstream wants not to be asked before this time.
    put_off_until: Option<Instant>,
}

/// The next step of the task that asks.
#[derive(Debug)]
pub(super) enum NextQuestion {
    /// Ask in the name of this client.
    Now(Asker, Slug),
    /// Not before this time, or a change.
    Later(Instant, Arc<Notify>),
    /// No client waits any more.
    Never,
}

/// A request that waits. It waits no more when this is dropped.
#[derive(Debug)]
pub(super) struct WaitingForReview {
    reviews: Reviews,
    key: ReviewKey,
    number: u64,
    since: Instant,
    dismissed: Arc<Notify>,
    seen: watch::Receiver<Option<Arc<SeenReview>>>,
    /// Whether a task has to be started that asks.
    pub(super) needs_task: bool,
}

impl Asker {
    pub(super) fn new(evidence: Arc<Evidence>, call_id: RequestId) -> Self {
        Self { evidence, call_id, since: Instant::now(), dismissed: Arc::default() }
    }
}

impl Reviews {
    /// Has a request wait for a review.
    pub(super) fn wait(&self, wallet: Address, job: &Slug, asker: Asker) -> WaitingForReview {
        let key = key(wallet, job);
        let mut all = self.lock();
        forget_old(&mut all);
        let review = all.entry(key.clone()).or_insert_with(|| WatchedReview::new(job));
        let (number, since, dismissed) = (review.next, asker.since, asker.dismissed.clone());
        review.next += 1;
        review.waiting.insert(number, asker);
        review.changed.notify_one();
        let seen = review.seen.subscribe();
        let needs_task = !std::mem::replace(&mut review.is_asked, true);
        let reviews = self.clone();
        WaitingForReview { reviews, key, number, since, dismissed, seen, needs_task }
    }

    /// From now on these and no others are asked after for clients that listen. Returns those that need a
    /// task that asks.
    pub(super) fn listen(&self, submissions: Vec<(&OpenSubmission, Asker)>) -> Vec<ReviewKey> {
        let mut all = self.lock();
        let (mut kept, mut new) = (HashSet::new(), Vec::new());
        for (submission, asker) in submissions {
            let key = key(submission.wallet, &submission.job);
            let review = all.entry(key.clone()).or_insert_with(|| {
                let mut review = WatchedReview::new(&submission.job);
                review.pause = APART * u32::try_from(new.len()).unwrap_or(u32::MAX);
                review
            });
            review.listening = Some((asker, submission.submitted));
            if !std::mem::replace(&mut review.is_asked, true) {
                new.push(key.clone());
            }
            kept.insert(key);
        }
        for (_, review) in all.iter_mut().filter(|(key, _)| !kept.contains(*key)) {
            if review.listening.take().is_some() {
                review.changed.notify_one();
            }
        }
        forget_old(&mut all);
        new
    }

    /// The next step of the task that asks after a job.
    pub(super) fn next_question(&self, key: &ReviewKey) -> NextQuestion {
        let mut all = self.lock();
        let Some(review) = all.get_mut(key) else { return NextQuestion::Never };
        let listening = review.listening.as_ref().map(|(asker, _)| asker);
        let Some(asker) = review.waiting.values().next().or(listening) else {
            review.is_asked = false;
            return NextQuestion::Never;
        };
        let due = review.due();
        if due <= Instant::now() {
            return NextQuestion::Now(asker.clone(), review.job.clone());
        }
        NextQuestion::Later(due, review.changed.clone())
    }

    /// Takes note of the result of a question that was asked at that time.
    pub(super) fn asked(&self, key: &ReviewKey, asked: Instant, answer: Option<SeenReview>) {
        let mut all = self.lock();
        let Some(review) = all.get_mut(key) else { return };
        if let Some(seen) = &answer
            && let Some(before) = review.seen.borrow().as_ref()
            && seen.status.submission != before.status.submission
        {
            review.pace = Pace::default();
        }
        (review.asked, review.is_new, review.pause) = (asked, false, review.pace.next_pause());
        if let Some(seen) = answer {
            review.seen.send_replace(Some(Arc::new(seen)));
        }
    }

    /// Asks no more in the name of a client whose request waits, and tells it. False if none does.
    pub(super) fn dismiss(&self, key: &ReviewKey, asker: &Asker) -> bool {
        let mut all = self.lock();
        let Some(review) = all.get_mut(key) else { return false };
        let before = review.waiting.len();
        review.waiting.retain(|_, other| !Arc::ptr_eq(&other.dismissed, &asker.dismissed));
        asker.dismissed.notify_one();
        review.waiting.len() < before
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ReviewKey, WatchedReview>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(wallet: Address, job: &Slug) -> ReviewKey {
    (wallet, job.as_str().to_ascii_lowercase())
}

fn forget_old(all: &mut HashMap<ReviewKey, WatchedReview>) {
    all.retain(|_, review| review.is_asked || review.asked.elapsed() < REMEMBERED);
}

impl WatchedReview {
    fn new(job: &Slug) -> Self {
        Self {
            job: job.clone(),
            waiting: BTreeMap::new(),
            listening: None,
            next: 0,
            asked: Instant::now(),
            is_new: true,
            pace: Pace::default(),
            pause: Duration::ZERO,
            is_asked: false,
            changed: Arc::default(),
            seen: watch::Sender::new(None),
        }
    }

    /// When it is to be asked next. A request that came after the end of a review was seen asks at once: the
    /// job may have been submitted again.
    fn due(&self) -> Instant {
        let last = self.seen.borrow();
        let ended = last.as_ref().filter(|seen| seen.is_end()).map(|seen| seen.asked);
        if self.waiting.values().any(|asker| ended.is_some_and(|ended| asker.since > ended)) {
            return self.asked;
        }
        let pause = match &self.listening {
            Some((_, submitted)) if self.waiting.is_empty() && !self.is_new => {
                let age = Timestamp::now().duration_since(*submitted);
                let part = Duration::try_from(age).unwrap_or_default() / PART_OF_AGE;
                self.pause.max(part.min(LONGEST_PAUSE))
            }
            _ => self.pause,
        };
        let put_off_until = last.as_ref().and_then(|seen| seen.put_off_until);
        (self.asked + pause).max(put_off_until.unwrap_or(self.asked))
    }
}

impl SeenReview {
    pub(super) fn new(answer: Answer, asked: Instant) -> Self {
        let status = JobStatus::of(answer.clone());
        let put_off = retry::wished(&answer).filter(|_| is_put_off(answer.status));
        let put_off_until = put_off.map(|wait| Instant::now() + wait.min(LONGEST_PUT_OFF));
        Self { answer, status, asked, put_off_until }
    }

    /// Whether there is nothing to wait for: the review has an end, or the API refuses to tell.
    fn is_end(&self) -> bool {
        let status = self.answer.status.as_u16();
        let is_refused = (400..500).contains(&status) && ![408, 425, 429].contains(&status);
        self.status.review_end().is_some() || is_refused
    }

    /// Whether it answers a request that waits since then: it was asked later, or may not be asked again yet.
    fn answers(&self, since: Instant) -> bool {
        self.asked >= since || self.put_off_until.is_some_and(|until| Instant::now() < until)
    }
}

impl WaitingForReview {
    pub(super) fn key(&self) -> ReviewKey {
        self.key.clone()
    }

    /// Waits until the review has an end, it is time, or the question cannot be asked in this client's name.
    /// Returns the last answer to a question that was asked since this waits.
    pub(super) async fn until(
        mut self,
        end_of_wait: impl Future<Output = ()>,
    ) -> Option<Arc<SeenReview>> {
        let (since, dismissed) = (self.since, self.dismissed.clone());
        let ended = self.seen.wait_for(|seen| {
            seen.as_ref().is_some_and(|seen| seen.asked >= since && seen.is_end())
        });
        tokio::select! {
            _ = ended => {}
            () = end_of_wait => {}
            () = dismissed.notified() => return None,
        }
        let seen = self.seen.borrow().clone();
        seen.filter(|seen| seen.answers(since))
    }
}

impl Drop for WaitingForReview {
    fn drop(&mut self) {
        let mut all = self.reviews.lock();
        let Some(review) = all.get_mut(&self.key) else { return };
        review.waiting.remove(&self.number);
        if review.waiting.is_empty() {
            review.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
    use jiff::SignedDuration;
    use tokio::time::advance;

    use super::*;
    use crate::types::ClientId;

    const WALLET: Address = Address::new([1; 20]);
    const SECOND: Duration = Duration::from_secs(1);

    fn job() -> Slug {
        "job1".parse().unwrap()
    }

    fn asker(name: &str) -> Asker {
        Asker::new(Arc::default(), name.parse().unwrap())
    }

    /// The client in whose name the next question is asked now, or the seconds until then.
    fn next(reviews: &Reviews) -> Result<String, Option<u64>> {
        match reviews.next_question(&key(WALLET, &job())) {
            NextQuestion::Now(asker, _) => Ok(asker.call_id.as_str().to_owned()),
            NextQuestion::Later(due, _) => {
                Err(Some(due.saturating_duration_since(Instant::now()).as_secs()))
            }
            NextQuestion::Never => Err(None),
        }
    }

    fn answer(reviews: &Reviews, word: &str) {
        let body = format!(r#"{{"submission":{{"status":"{word}"}}}}"#);
        answer_with(reviews, StatusCode::OK, HeaderMap::new(), body);
    }

    fn answer_with(reviews: &Reviews, status: StatusCode, headers: HeaderMap, body: String) {
        let body = body.into();
        let answer = Answer { status, headers, body, clock_ahead: SignedDuration::ZERO };
        let now = Instant::now();
        reviews.asked(&key(WALLET, &job()), now, Some(SeenReview::new(answer, now)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_is_asked_for_all_in_the_name_of_the_one_that_waits_longest() {
        let reviews = Reviews::default();
        let first = reviews.wait(WALLET, &job(), asker("first"));
        let upper = "JOB1".parse().unwrap();
        let second = reviews.wait(WALLET, &upper, asker("second"));
        assert!(first.needs_task && !second.needs_task);
        assert_eq!(next(&reviews).unwrap(), "first");
        answer(&reviews, "submitted");
        assert!(matches!(next(&reviews), Err(Some(2..4))), "{:?}", next(&reviews));
        drop(first);
        advance(4 * SECOND).await;
        assert_eq!(next(&reviews).unwrap(), "second");
        answer(&reviews, "approved");
        let seen = second.until(std::future::pending()).await.unwrap();
        assert_eq!(seen.status.submission.as_deref(), Some("approved"));
        assert_eq!(next(&reviews), Err(None), "no client waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_puts_questions_off_is_not_asked_before() {
        let reviews = Reviews::default();
        let first = reviews.wait(WALLET, &job(), asker("first"));
        let headers = HeaderMap::from_iter([(RETRY_AFTER, "100".parse().unwrap())]);
        let status = StatusCode::TOO_MANY_REQUESTS;
        answer_with(&reviews, status, headers, String::new());
        advance(SECOND).await;
        let second = reviews.wait(WALLET, &job(), asker("second"));
        assert_eq!(next(&reviews), Err(Some(99)));
        for waiting in [first, second] {
            let seen = waiting.until(std::future::ready(())).await.unwrap();
            assert_eq!(seen.answer.status, status);
        }
        let third = reviews.wait(WALLET, &job(), asker("third"));
        advance(99 * SECOND).await;
        assert_eq!(next(&reviews).unwrap(), "third");
        assert!(third.until(std::future::ready(())).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_from_before_a_wait_is_not_its_end() {
        let reviews = Reviews::default();
        let _first = reviews.wait(WALLET, &job(), asker("first"));
        answer(&reviews, "rejected");
        advance(SECOND / 2).await;
        let second = reviews.wait(WALLET, &job(), asker("second"));
        assert_eq!(next(&reviews).unwrap(), "first", "it is asked anew at once");
        let seen = second.until(std::future::ready(()));
        assert!(seen.await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_only_listen_are_asked_for_more_seldom_the_older_a_proof_is() {
        let reviews = Reviews::default();
        let hour = SignedDuration::from_hours(1);
        let submission = OpenSubmission {
            wallet: WALLET,
            job: job(),
            client: ClientId::LOCAL,
            submitted: Timestamp::now() - hour,
        };
        let listening = || vec![(&submission, asker("listens"))];
        assert_eq!(reviews.listen(listening()), [key(WALLET, &job())]);
        assert!(reviews.listen(listening()).is_empty(), "a task asks already");
        assert_eq!(next(&reviews).unwrap(), "listens");
        answer(&reviews, "submitted");
        assert!(matches!(next(&reviews), Err(Some(299..=300))), "{:?}", next(&reviews));
        let waits = reviews.wait(WALLET, &job(), asker("waits"));
        assert!(matches!(next(&reviews), Err(Some(2..4))), "{:?}", next(&reviews));
        drop(waits);
        reviews.listen(Vec::new());
        assert_eq!(next(&reviews), Err(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_in_whose_name_nothing_can_be_asked_is_told_and_the_next_one_asks() {
        let reviews = Reviews::default();
        let first = reviews.wait(WALLET, &job(), asker("first"));
        let _second = reviews.wait(WALLET, &job(), asker("second"));
        let NextQuestion::Now(asker, _) = reviews.next_question(&first.key()) else { panic!() };
        assert!(reviews.dismiss(&first.key(), &asker));
        assert_eq!(next(&reviews).unwrap(), "second");
        assert!(first.until(std::future::pending()).await.is_none());
    }
}
