use super::*;
use crate::next_job::{JobRequest, listed};

const SOON: Duration = Duration::from_secs(10);

/// A request that arrives.
fn joins(queue: &Arc<JobQueue>, filter: &str) -> Seat {
    let lister = queue.arrive(Client::local(), Instant::now());
    let filter = JobRequest::parse(filter.as_bytes()).unwrap().filter;
    queue.join(lister, filter, Instant::now() + SOON).0
}

/// Open jobs with these rewards, of which the reward is also the id.
fn jobs(rewards: &[u32]) -> Vec<ListedJob> {
    let job = |reward: &u32| format!(r#"{{"job_id":"{reward}","reward_credits":{reward}}}"#);
    let jobs: Vec<_> = rewards.iter().map(job).collect();
    listed(format!("[{}]", jobs.join(",")).as_bytes()).unwrap()
}

/// A list that begins now.
fn lists(queue: &JobQueue, rewards: &[u32]) {
    queue.begin_list().unwrap();
    queue.learn(jobs(rewards));
}

fn offered(seat: &mut Seat) -> Option<ListedJob> {
    match seat.offer.try_recv() {
        Ok(JobOffer::Job(job)) => Some(job),
        _ => None,
    }
}

fn id(seat: &mut Seat) -> Option<String> {
    offered(seat).map(|job| job.id.to_string())
}

#[tokio::test(start_paused = true)]
async fn the_oldest_request_gets_the_best_job_that_it_takes() {
    let queue = Arc::<JobQueue>::default();
    let choosy = r#"{"min_reward_credits":300}"#;
    let mut seats: Vec<_> = [choosy, "", "", choosy].map(|filter| joins(&queue, filter)).into();
    lists(&queue, &[100, 400, 200]);
    let found: Vec<_> = seats.iter_mut().map(id).collect();
    assert_eq!(found, [Some("400".into()), Some("200".into()), Some("100".into()), None]);
    // A later request takes a job that is left of the list, as long as the list is up to date.
    drop(seats);
    let _waits = joins(&queue, choosy);
    lists(&queue, &[100, 400, 200, 50]);
    let found = [(); 2].map(|()| id(&mut joins(&queue, "")));
    assert_eq!(found, [Some("50".into()), None], "the others are being reserved");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_goes_away_gives_its_place_and_its_job_to_the_next() {
    let queue = Arc::<JobQueue>::default();
    let [first, second, mut third] = [(); 3].map(|()| joins(&queue, ""));
    drop(first);
    lists(&queue, &[1]);
    // The offer has come, and is not taken.
    drop(second);
    assert_eq!(id(&mut third).as_deref(), Some("1"));
    drop(third);
    assert!(queue.begin_list().is_none(), "no request waits");
    assert!(queue.due().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_list_from_before_a_reserve_ended_does_not_offer_the_job_again() {
    let queue = Arc::<JobQueue>::default();
    let mut first = joins(&queue, "");
    lists(&queue, &[1]);
    let job = offered(&mut first).unwrap();
    let mut second = joins(&queue, "");
    lists(&queue, &[1]);
    assert_eq!(id(&mut second), None, "it is being reserved");
    queue.begin_list().unwrap();
    tokio::time::advance(Duration::from_millis(1)).await;
    queue.reserved(&job, false);
    queue.learn(jobs(&[1]));
    assert_eq!(id(&mut second), None, "the list may be from before");
    tokio::time::advance(Duration::from_millis(1)).await;
    lists(&queue, &[1]);
    assert_eq!(id(&mut second).as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn lists_are_asked_for_more_seldom_until_something_changes() {
    let queue = Arc::<JobQueue>::default();
    let _waits = joins(&queue, r#"{"min_reward_credits":9000}"#);
    let pauses = |lists_of: [&[u32]; 6]| {
        lists_of.map(|jobs| {
            lists(&queue, jobs);
            queue.next_list().as_secs()
        })
    };
    let pauses = pauses([&[1], &[1], &[1], &[1], &[1, 2], &[2, 1]]);
    for (pause, least) in pauses.into_iter().zip([2, 4, 8, 16, 2, 4]) {
        assert!((least..=2 * least).contains(&pause), "{pauses:?}");
    }
    // Another team was faster, so the list is out of date.
    queue.reserved(&jobs(&[1])[0], true);
    assert!(queue.next_list() <= SHORTEST_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_one_client_is_told_to_it_alone() {
    let queue = Arc::<JobQueue>::default();
    let [mut first, mut second] = [(); 2].map(|()| joins(&queue, ""));
    let why = NoList::Failed(Arc::new(CallError::Aborted));
    let own = queue.begin_list().unwrap();
    queue.fail(Some(&own), Duration::ZERO, &why);
    assert!(matches!(first.offer.try_recv(), Ok(JobOffer::Failed(_))));
    assert!(second.offer.try_recv().is_err() && queue.next_list().is_zero());
    queue.begin_list().unwrap();
    queue.fail(None, SOON, &why);
    assert!(matches!(second.offer.try_recv(), Ok(JobOffer::Failed(_))));
    assert!(queue.next_list() >= SOON);
}
