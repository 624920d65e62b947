//! The holders of jobs, and how many jobs a client may hold.

use super::*;

fn limited(text: &str, max: u32) -> Client {
    Client { max_reservations: Some(max), ..client(text) }
}

const HALF_AN_HOUR: i64 = 30 * 60;

async fn too_many(store: &Store, client: &Client, job: &str, now: i64) -> (u32, Timestamp) {
    match denied(store, &Operation::of(client, "job_reserve", job, ""), now).await {
        Denied::TooManyReservations { running, until } => (running, until),
        other => panic!("{other:?}"),
    }
}

async fn opened(store: &Store, client: &Client, job: &str, now: i64) -> Claim {
    started(store, &Operation::of(client, "job_reserve", job, ""), now).await.claim
}

async fn closed(store: &Store, client: &Client, job: &str, claim: Claim) {
    let reserve = Operation::of(client, "job_reserve", job, "");
    finish(store, &reserve, &claim, &end(KeyEnd::Free, JobEnd::Unchanged), 0).await;
}

async fn holder(store: &Store, job: &str, asks: &Client, now: i64) -> Option<ClientId> {
    let wallet = crate::store::testing::WALLET.parse().unwrap();
    store.holder(wallet, &job.parse().unwrap(), asks.id, at(now)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_race_exceeds_the_limit_and_the_count_survives_a_restart() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open()];
    let clients = [limited("a", 3), limited("b", 5), client("free")];
    let clients = added(&folder, &stores[0], clients).await;
    let tasks = (0..32).map(|number| {
        let (store, client) = (stores[number % 2].clone(), clients[number % 3].clone());
        tokio::spawn(async move {
            let reserve = Operation::of(&client, "job_reserve", &format!("job{number}"), "");
            let begun = store.begin(&reserve, moment(0)).await.unwrap();
            (number % 3, matches!(begun, Begun::Started(_)))
        })
    });
    let mut counts = [0; 3];
    for task in tasks.collect::<Vec<_>>() {
        let (client, started) = task.await.unwrap();
        counts[client] += usize::from(started);
    }
    assert_eq!(counts, [3, 5, 10]);
    drop(stores);
    let store = folder.open();
    assert_eq!(too_many(&store, &clients[0], "more", 0).await, (3, at(HALF_AN_HOUR)));
    assert_eq!(too_many(&store, &clients[1], "more", 0).await, (5, at(HALF_AN_HOUR)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_clients_one_gets_the_job() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open()];
    let clients = added(&folder, &stores[0], ["a", "b", "c", "d"].map(client)).await;
    let tasks = (0..32).map(|number| {
        let (store, client) = (stores[number % 2].clone(), clients[number % 4].clone());
        tokio::spawn(async move {
            let reserve = Operation::of(&client, "job_reserve", "job1", "");
            (number % 4, store.begin(&reserve, moment(0)).await.unwrap())
        })
    });
    let mut holders = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            (client, Begun::Started(_)) => holders.push(client),
            (_, Begun::Denied(Denied::Holder(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    holders.dedup();
    assert_eq!(holders.len(), 1, "it may ask for it more than once");
}

#[tokio::test]
async fn a_reservation_counts_until_it_ends_or_its_proof_is_submitted() {
    let folder = Folder::new();
    let store = folder.open();
    let [client] = added(&folder, &store, [limited("ci", 2)]).await;
    reserved(&store, &client, "job1", 600, 0).await;
    reserved(&store, &client, "job2", 900, 0).await;
    assert_eq!(too_many(&store, &client, "job3", 0).await, (2, at(600)));
    assert_eq!(too_many(&store, &client, "job3", 599).await, (2, at(600)));
    let complete = Operation::of(&client, "job_complete", "job2", "{}");
    make(&store, &complete, end(KeyEnd::Free, JobEnd::Submitted), 599).await;
    let claim = opened(&store, &client, "job3", 599).await;
    closed(&store, &client, "job3", claim).await;
    drop(opened(&store, &client, "job3", 599).await);
    drop(opened(&store, &client, "job4", 600).await);
}

#[tokio::test]
async fn a_reserve_counts_until_its_outcome_is_known_or_for_half_an_hour() {
    let folder = Folder::new();
    let store = folder.open();
    let [client, other] = added(&folder, &store, [limited("ci", 1), limited("other", 1)]).await;
    let claim = opened(&store, &client, "job1", 0).await;
    assert_eq!(too_many(&store, &client, "job2", 0).await.0, 1);
    closed(&store, &client, "job1", claim).await;
    assert_eq!(holder(&store, "job1", &other, 0).await, None);
    drop(opened(&store, &client, "job2", 0).await);
    let store = folder.open();
    let last = HALF_AN_HOUR - 1;
    assert_eq!(too_many(&store, &client, "job3", last).await, (1, at(HALF_AN_HOUR)));
    assert_eq!(holder(&store, "job2", &other, last).await, Some(client.id));
    assert!(store.reservations(at(0)).await.unwrap().is_empty(), "it is no reservation");
    let wallet = crate::store::testing::WALLET.parse().unwrap();
    assert!(store.reservation(wallet, &"job2".parse().unwrap()).await.unwrap().is_none());
    drop(opened(&store, &client, "job3", HALF_AN_HOUR).await);
    // A pending reserve that may have succeeded goes with the proof of its job.
    drop(opened(&store, &other, "job5", 0).await);
    let complete = Operation::of(&other, "job_complete", "job5", "{}");
    make(&store, &complete, end(KeyEnd::Free, JobEnd::Submitted), 0).await;
    drop(opened(&store, &other, "job6", 0).await);
}

#[tokio::test]
async fn a_job_counts_once_however_often_it_is_asked_for() {
    let folder = Folder::new();
    let store = folder.open();
    let [client] = added(&folder, &store, [limited("ci", 2)]).await;
    reserved(&store, &client, "job1", 600, 0).await;
    let first = opened(&store, &client, "job1", 0).await;
    drop(opened(&store, &client, "job1", 0).await);
    let second = opened(&store, &client, "job2", 0).await;
    assert_eq!(too_many(&store, &client, "job3", 0).await, (2, at(HALF_AN_HOUR)));
    drop(opened(&store, &client, "job1", 0).await);
    // The end of one reserve takes nothing from another of the same job, nor from the reservation.
    closed(&store, &client, "job1", first).await;
    assert_eq!(too_many(&store, &client, "job3", 0).await.0, 2);
    assert_eq!(jobs(&store).await, ["job1"]);
    closed(&store, &client, "job2", second).await;
    drop(opened(&store, &client, "job3", 0).await);
}

#[tokio::test]
async fn a_job_has_a_holder_from_the_reserve_to_the_end_on_any_clock() {
    let folder = Folder::new();
    let store = folder.open();
    let [ci, other] = added(&folder, &store, ["ci", "other"].map(client)).await;
    assert_eq!(holder(&store, "job1", &other, 0).await, None);
    reserved(&store, &ci, "job1", 600, 0).await;
    for now in [0, 600, 604] {
        assert_eq!(holder(&store, "JOB1", &other, now).await, Some(ci.id), "{now}");
        let reserve = Operation::of(&other, "job_reserve", "job1", "");
        assert!(matches!(denied(&store, &reserve, now).await, Denied::Holder(_)), "{now}");
    }
    assert_eq!(holder(&store, "job1", &other, 605).await, None);
    assert_eq!(holder(&store, "job2", &other, 0).await, None);
    let elsewhere = crate::types::Address::new([0; 20]);
    let elsewhere = store.holder(elsewhere, &"job1".parse().unwrap(), ci.id, at(0)).await;
    assert_eq!(elsewhere.unwrap(), None);
    // A clock that is wrong takes nothing from who reserved it last.
    assert_eq!(holder(&store, "job1", &ci, 605).await, Some(ci.id));
    drop(opened(&store, &other, "job1", 605).await);
    assert_eq!(holder(&store, "job1", &ci, 605).await, Some(other.id));
}

#[tokio::test]
async fn a_submitted_job_stays_its_clients_until_it_is_reserved_again_or_a_month_is_over() {
    const MONTH: i64 = 30 * DAY;
    let folder = Folder::new();
    let store = folder.open();
    let boss = Client { admin: true, ..client("boss") };
    let [ci, other, boss] = added(&folder, &store, [client("ci"), client("other"), boss]).await;
    let submit = async |client: &Client, job: &str, now: i64| {
        let complete = Operation::of(client, "job_complete", job, "{}");
        let past = at(now);
        let ended = Finish { past, ..end(KeyEnd::Free, JobEnd::Submitted) };
        make(&store, &complete, ended, now).await;
    };
    reserved(&store, &ci, "job1", 600, 0).await;
    drop(opened(&store, &ci, "job2", 0).await);
    for (job, of) in [("job1", &ci), ("job2", &ci), ("job3", &boss)] {
        submit(&boss, job, 0).await;
        assert_eq!(holder(&store, job, &other, MONTH - 1).await, Some(of.id), "{job}");
    }
    // A client that tries to reserve it is not told of the submission: the upstream knows better.
    let claim = opened(&store, &other, "job1", 0).await;
    assert_eq!(holder(&store, "job1", &other, 0).await, Some(ci.id));
    closed(&store, &other, "job1", claim).await;
    reserved(&store, &other, "job1", 600, 0).await;
    assert_eq!(holder(&store, "job1", &ci, 0).await, Some(other.id));
    submit(&boss, "job4", MONTH).await;
    assert_eq!(holder(&store, "job2", &other, MONTH).await, None);
}

#[tokio::test]
async fn an_admin_may_reserve_what_another_holds() {
    let folder = Folder::new();
    let store = folder.open();
    let boss = Client { admin: true, ..client("boss") };
    let [ci, boss] = added(&folder, &store, [client("ci"), boss]).await;
    reserved(&store, &ci, "job1", 600, 0).await;
    let claim = opened(&store, &boss, "job1", 0).await;
    closed(&store, &boss, "job1", claim).await;
    assert_eq!(holder(&store, "job1", &boss, 0).await, Some(ci.id));
    // So may the owner of the process, while there is no client.
    folder.tamper("DELETE FROM clients");
    let _claim = opened(&store, &Client::local(), "job1", 0).await;
}

async fn jobs(store: &Store) -> Vec<String> {
    let all = store.reservations(at(0)).await.unwrap();
    all.iter().map(|reservation| reservation.job.to_string()).collect()
}
