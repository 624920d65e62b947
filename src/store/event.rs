//! An event that clients are told. It is a record of the journal, whose number is the event's id.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    json::Object,
    policy::Client,
    types::{Address, ClientId, ClientName, Slug},
};

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A job was reserved.
    ReservationMade,
    /// A reservation ends in five minutes, or in one, without a proof so far.
    ReservationEnding,
    /// A reservation has ended without a proof.
    ReservationEnded,
    /// A proof was approved.
    SubmissionApproved,
    /// A proof was rejected.
    SubmissionRejected,
    /// A wallet has a new session.
    SessionRenewed,
    /// The upstream is out of reach.
    UpstreamUnreachable,
    /// The upstream answers again.
    UpstreamBack,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::ReservationMade,
        Self::ReservationEnding,
        Self::ReservationEnded,
        Self::SubmissionApproved,
        Self::SubmissionRejected,
        Self::SessionRenewed,
        Self::UpstreamUnreachable,
        Self::UpstreamBack,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReservationMade => "reservation_made",
            Self::ReservationEnding => "reservation_ending",
            Self::ReservationEnded => "reservation_ended",
            Self::SubmissionApproved => "submission_approved",
            Self::SubmissionRejected => "submission_rejected",
            Self::SessionRenewed => "session_renewed",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamBack => "upstream_back",
        }
    }
}

/// An event, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its kind.
    pub kind: EventKind,
    /// The client whose job it is about.
    pub client: Option<(ClientId, ClientName)>,
    /// The wallet of the job or the session.
    pub wallet: Option<Address>,
    /// The job.
    pub job: Option<Slug>,
    /// The end of the reservation.
    pub reserved_until: Option<Timestamp>,
    /// The reward of an approved proof, if the upstream told it as a whole number.
    pub reward_credits: Option<u64>,
}

impl Event {
    /// An event of the upstream.
    pub(crate) fn new(kind: EventKind) -> Self {
        let (client, wallet, job) = (None, None, None);
        Self { kind, client, wallet, job, reserved_until: None, reward_credits: None }
    }

    /// The event that a client has got a job until then.
    pub(super) fn reservation_made(
        client: (ClientId, ClientName),
        wallet: Address,
        job: Slug,
        ends: Timestamp,
    ) -> Self {
        let (client, wallet, job) = (Some(client), Some(wallet), Some(job));
        let event = Self::new(EventKind::ReservationMade);
        Self { client, wallet, job, reserved_until: Some(ends), ..event }
    }

    /// Whether a client that signs with this wallet is told: an admin of everything, and others of their own
    /// jobs, their wallet and the upstream.
    pub fn is_for(&self, client: &Client, wallet: Address) -> bool {
        let is_own = match (&self.client, self.wallet) {
            (Some((id, _)), _) => *id == client.id,
            (None, of) => of.is_none_or(|of| of == wallet),
        };
        client.admin || is_own
    }
}

/// An event with its place in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// The number of its record.
    pub seq: u64,
    /// When it was recorded.
    pub time: Timestamp,
    /// The event.
    pub event: Event,
}

impl RecordedEvent {
    /// Reads a record; `None` if it is no event.
    pub(super) fn read(record: &str) -> Option<Self> {
        let fields = Object::parse(record.as_bytes()).ok()?;
        let kind = fields.text("event")?;
        let number = |name| fields.field(name)?.as_str().parse::<i64>().ok();
        let time = |name| Timestamp::from_millisecond(number(name)?).ok();
        let client = number("client_id").map(ClientId::new);
        let event = Event {
            kind: EventKind::ALL.into_iter().find(|known| known.as_str() == kind)?,
            client: client.zip(fields.text("client").and_then(|name| name.parse().ok())),
            wallet: fields.text("wallet").and_then(|wallet| wallet.parse().ok()),
            job: fields.text("product").and_then(|job| job.parse().ok()),
            reserved_until: time("reserved_until"),
            reward_credits: number("reward_credits").and_then(|number| number.try_into().ok()),
        };
        Some(Self { seq: number("seq")?.try_into().ok()?, time: time("time")?, event })
    }

    /// For programs. The seconds that are left are those at the time of the event.
    pub fn to_json(&self) -> Value {
        let Self { time, event, .. } = self;
        let all = json!({
            "event": event.kind.as_str(),
            "time": time.to_string(),
            "job_id": event.job.as_ref().map(Slug::as_str),
            "client": event.client.as_ref().map(|(_, name)| name.as_str()),
            "wallet": event.wallet.map(|wallet| wallet.to_string()),
            "reserved_until": event.reserved_until.map(|ends| ends.to_string()),
            "seconds_left": event.reserved_until.map(|ends| ends.duration_since(*time).as_secs().max(0)),
            "reward_credits": event.reward_credits,
        });
        let Value::Object(mut all) = all else { return all };
        all.retain(|_, value| !value.is_null());
        all.into()
    }
}
