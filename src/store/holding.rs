//! The client that holds a job, and how many jobs a client holds: rules over rows, without SQL.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::{clock, json::CanonicalJson, types::ClientId};

/// One client's hold of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) client: ClientId,
    pub(super) client_name: String,
    pub(super) wallet: String,
    pub(super) job: String,
    pub(super) state: HoldState,
    /// In milliseconds of Unix time.
    pub(super) ends: i64,
    /// The upstream's id of the reservation.
    pub(super) reservation_id: Option<String>,
}

/// How far a hold is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HoldState {
    /// The reserve is under way, or its answer was lost.
    Pending,
    /// The job is reserved.
    Reserved,
    /// The job is reserved upstream, and its client has released it.
    Released,
    /// The job's proof is submitted.
    Submitted,
}

impl HoldState {
    /// As it is stored.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Reserved => "reserved",
            Self::Released => "released",
            Self::Submitted => "submitted",
        }
    }

    /// Whether it keeps the job from other clients, until it ends.
    fn is_held(self) -> bool {
        matches!(self, Self::Pending | Self::Reserved)
    }

    pub(super) fn from_str(text: &str) -> Option<Self> {
        [Self::Pending, Self::Reserved, Self::Released, Self::Submitted]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// The holds of one job, by all clients.
#[derive(Debug, Default)]
pub(super) struct Holds(pub(super) Vec<Hold>);

impl Holds {
    /// The hold of the client that has the job: by a running reservation, else a submitted proof, else a
    /// reserve that may have succeeded. Else that of the asking client, if it reserved the job last: our clock
    /// may be wrong about the end.
    pub(super) fn holder(&self, asks: ClientId, now: Timestamp) -> Option<&Hold> {
        let runs = |hold: &&Hold| hold.ends > surely_over(now);
        let of = |state| self.0.iter().filter(move |hold| hold.state == state);
        of(HoldState::Reserved)
            .find(runs)
            .or_else(|| of(HoldState::Submitted).next())
            .or_else(|| of(HoldState::Pending).find(runs))
            .or_else(|| of(HoldState::Reserved).find(|hold| hold.client == asks))
    }

    /// Whether another client keeps this one from reserving the job. A submission does not: only the
    /// upstream knows whether the job is open again.
    pub(super) fn is_reserved_by_another(&self, client: ClientId, now: Timestamp) -> bool {
        self.0.iter().any(|hold| {
            hold.state.is_held() && hold.ends > surely_over(now) && hold.client != client
        })
    }

    /// Whether the job is released: no client holds it, and it is no client's to look at.
    pub(super) fn is_released(&self, now: Timestamp) -> bool {
        let runs = |hold: &Hold| hold.ends > surely_over(now);
        self.0.iter().any(|hold| hold.state == HoldState::Released && runs(hold))
    }

    /// Whether any client has reserved the job, or is about to, or it is released.
    pub(super) fn is_taken(&self, now: Timestamp) -> bool {
        let runs = |hold: &Hold| hold.ends > surely_over(now);
        self.0.iter().any(|hold| hold.state != HoldState::Submitted && runs(hold))
    }

    /// The reservation; also one that has ended, for a day.
    pub(super) fn reserved(&self) -> Option<&Hold> {
        self.0.iter().find(|hold| hold.state == HoldState::Reserved)
    }

    /// The submission, as long as the job was not reserved since.
    pub(super) fn submitted(&self) -> Option<&Hold> {
        self.0.iter().find(|hold| hold.state == HoldState::Submitted)
    }

    /// The id of the reservation, or of the one whose proof was submitted: a submitted job has no other until
    /// it is reserved again.
    pub(super) fn reservation_id(&self) -> Option<&str> {
        let known = [self.reserved(), self.submitted()].into_iter().flatten();
        known.filter_map(|hold| hold.reservation_id.as_deref()).next()
    }

    /// Whether the proof is submitted already for a completion that names this reservation or none. A
    /// completion that names another reservation is still open.
    pub(super) fn is_submitted(&self, named: Option<&CanonicalJson>) -> bool {
        let Some(submitted) = self.submitted().filter(|_| self.reserved().is_none()) else {
            return false;
        };
        let own = submitted.reservation_id.as_deref().map(CanonicalJson::string);
        named.is_none() || named == own.as_ref()
    }

    /// Whether the job may have been reserved again since a completion that named no reservation.
    pub(super) fn may_be_anew(&self, named: Option<&CanonicalJson>) -> bool {
        named.is_none() && self.reserved().is_some() && self.reservation_id().is_none()
    }
}

/// How many jobs a client with these holds has reserved, or is about to, besides one job of a wallet, and
/// when the first of them ends. Several reserves of one job count once.
pub(super) fn running(
    holds: &[Hold],
    [wallet, job]: [&str; 2],
    now: Timestamp,
) -> (u32, Timestamp) {
    let mut ends = HashMap::<_, i64>::new();
    for hold in holds.iter().filter(|hold| hold.state.is_held()) {
        let is_same = hold.wallet == wallet && hold.job.eq_ignore_ascii_case(job);
        if hold.ends > now.as_millisecond() && !is_same {
            let end = ends.entry((&hold.wallet, hold.job.to_ascii_lowercase())).or_default();
            *end = hold.ends.max(*end);
        }
    }
    let first = ends.values().min().and_then(|end| Timestamp::from_millisecond(*end).ok());
    (u32::try_from(ends.len()).unwrap_or(u32::MAX), first.unwrap_or(now))
}

/// The time, in milliseconds, up to which an end is past on every clock.
pub(super) fn surely_over(now: Timestamp) -> i64 {
    now.as_millisecond().saturating_sub(clock::TOLERANCE.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use HoldState::{Pending, Reserved, Submitted};

    use super::*;

    const CI: ClientId = ClientId::new(1);
    const OTHER: ClientId = ClientId::new(2);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// A hold of `job1` that has no known id.
    fn hold(client: ClientId, state: HoldState, ends: i64) -> Hold {
        Hold {
            client,
            client_name: format!("c{client}"),
            wallet: "w".to_owned(),
            job: "job1".to_owned(),
            state,
            ends: ends * 1000,
            reservation_id: None,
        }
    }

    fn of(state: HoldState, reservation_id: Option<&str>) -> Hold {
        Hold { reservation_id: reservation_id.map(str::to_owned), ..hold(CI, state, 60) }
    }

    fn holder(holds: &[Hold], asks: ClientId, now: i64) -> Option<ClientId> {
        Holds(holds.to_vec()).holder(asks, at(now)).map(|hold| hold.client)
    }

    #[test]
    fn a_running_reservation_comes_before_a_submission_and_that_before_a_reserve() {
        let all: Vec<_> = (1..)
            .zip([(Pending, 60), (Submitted, 0), (Reserved, 60)])
            .map(|(number, (state, ends))| hold(ClientId::new(number), state, ends))
            .collect();
        assert_eq!(holder(&[], CI, 0), None);
        for (number, count) in (1..).zip(1..=all.len()) {
            assert_eq!(holder(&all[..count], CI, 0), Some(ClientId::new(number)));
        }
        assert_eq!(holder(&all, CI, 65), Some(OTHER), "the reservation has ended");
    }

    #[test]
    fn a_hold_ends_when_it_is_over_on_any_clock_and_a_submission_keeps_no_client_from_reserving() {
        for state in [Reserved, Pending] {
            let held = [hold(CI, state, 60)];
            let keeps = |client, now| Holds(held.to_vec()).is_reserved_by_another(client, at(now));
            for now in [0, 60, 64] {
                assert_eq!(holder(&held, OTHER, now), Some(CI), "{state:?} {now}");
                assert!(keeps(OTHER, now) && !keeps(CI, now), "{state:?} {now}");
            }
            assert_eq!(holder(&held, OTHER, 65), None);
            assert!(!keeps(OTHER, 65));
            // A clock that is wrong takes nothing from the client that reserved it last.
            assert_eq!(holder(&held, CI, 65), Some(CI).filter(|_| state == Reserved));
        }
        let submitted = Holds(vec![hold(CI, Submitted, 60)]);
        assert!(!submitted.is_reserved_by_another(OTHER, at(0)));
    }

    #[test]
    fn each_job_counts_once_but_the_one_that_is_asked_for() {
        let job = |job: &str, hold| Hold { job: job.to_owned(), ..hold };
        let holds = [
            job("job1", hold(CI, Reserved, 60)),
            job("JOB1", hold(CI, Pending, 90)),
            job("job2", hold(CI, Pending, 30)),
            job("job3", hold(CI, Submitted, 99)),
            job("job4", hold(CI, Reserved, 10)),
        ];
        let running = |asked| running(&holds, asked, at(10));
        assert_eq!(running(["w", "job9"]), (2, at(30)));
        assert_eq!(running(["w", "JOB2"]), (1, at(90)), "the end of the later one");
        assert_eq!(running(["v", "job1"]), (2, at(30)), "of another wallet");
        assert_eq!(super::running(&[], ["w", "job1"], at(10)), (0, at(10)));
    }

    #[test]
    fn a_submitted_job_takes_no_proof_but_one_for_another_reservation() {
        let named = |id: &str| CanonicalJson::string(id);
        let is_submitted = |holds: &[Hold], id: Option<&str>| {
            Holds(holds.to_vec()).is_submitted(id.map(named).as_ref())
        };
        let ids = [None, Some("r-1"), Some("r-2")];
        let (known, unknown) = (of(Submitted, Some("r-1")), of(Submitted, None));
        for (holds, expected) in [
            (vec![], [false; 3]),
            (vec![known.clone()], [true, true, false]),
            (vec![unknown], [true, false, false]),
            (vec![known, of(Reserved, None)], [false; 3]),
            (vec![of(Pending, None)], [false; 3]),
        ] {
            assert_eq!(ids.map(|id| is_submitted(&holds, id)), expected, "{holds:?}");
        }
    }

    #[test]
    fn a_job_that_is_reserved_may_be_so_anew_if_no_id_is_known() {
        let named = CanonicalJson::string("r-1");
        for (holds, expected) in [
            (vec![], false),
            (vec![of(Submitted, None)], false),
            (vec![of(Reserved, None)], true),
            (vec![of(Reserved, None), of(Submitted, None)], true),
            (vec![of(Reserved, Some("r-1"))], false),
            (vec![of(Reserved, None), of(Submitted, Some("r-1"))], false),
        ] {
            let holds = Holds(holds);
            assert_eq!(holds.may_be_anew(None), expected, "{holds:?}");
            assert!(!holds.may_be_anew(Some(&named)), "{holds:?}");
        }
    }
}
