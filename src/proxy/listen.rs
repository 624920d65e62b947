//! Clients that listen for events, and the task that follows the journal for all of them.
//!
//! Whatever process of this state records an event, the journal has it, and its number there is its id.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    admit::action,
    evidence::Evidence,
    feed::FeedNews,
    parts::Proxy,
    reviews::{Asker, STATUS},
};
use crate::{
    policy::Client,
    store::{Event, EventKind, OpenSubmission, RecordedEvent, StoreError},
    types::{Address, ClientId, RequestId},
    waiting::Pace,
};

/// How often it is looked for news.
const TICK: Duration = Duration::from_millis(500);

/// How often it is noted that a client listens.
const NOTED: Duration = Duration::from_secs(60);

/// How many events wait while none can be recorded.
const MOST_UNTOLD: usize = 64;

/// A client that listens for events.
#[derive(Debug)]
pub struct EventListener {
    proxy: Arc<Proxy>,
    evidence: Arc<Evidence>,
    client: Client,
    wallet: Address,
    number: u64,
    /// All events up to this record were told or are in `ready`.
    seen: u64,
    ready: VecDeque<Arc<RecordedEvent>>,
    news: watch::Receiver<FeedNews>,
}

impl Proxy {
    /// Has a client listen for the events after this one, or after now.
    ///
    /// # Errors
    /// That cannot be noted, so events might be missed.
    pub async fn listen(
        self: &Arc<Self>,
        evidence: Evidence,
        client: Client,
        call_id: RequestId,
        after: Option<u64>,
    ) -> Result<EventListener, StoreError> {
        let end = self.store.note_listener().await?;
        let evidence = Arc::new(evidence);
        let number = self.feed.add(client.clone(), Asker::new(evidence.clone(), call_id));
        let listener = EventListener {
            proxy: self.clone(),
            evidence,
            wallet: self.wallet_of(&client),
            client,
            number,
            seen: after.map_or(end, |after| after.min(end)),
            ready: VecDeque::new(),
            news: self.feed.news(),
        };
        self.follow_after(end);
        Ok(listener)
    }

    /// Goes on to record events after a restart, if clients listened of late.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn resume_events(self: &Arc<Self>) -> Result<(), StoreError> {
        let news = self.store.event_news(u64::MAX).await?;
        if news.recorded_until > Timestamp::now() {
            self.follow_after(news.page.end);
        }
        Ok(())
    }

    fn follow_after(self: &Arc<Self>, end: u64) {
        if self.feed.begin(end) {
            tokio::spawn(self.clone().follow_journal(end));
        }
    }

    /// Follows the journal, and records what is to be told, as long as that is recorded.
    async fn follow_journal(self: Arc<Self>, mut seen: u64) {
        let mut watched = Watched::new(&self);
        let mut noted = Instant::now();
        loop {
            tokio::select! {
                () = sleep(TICK) => {}
                () = self.ending.cancelled() => return,
            }
            let listeners = self.feed.listeners();
            if let Err(error) = self.tell_news(&mut watched, &mut seen, &listeners).await {
                tracing::debug!(%error, "events wait, as the journal cannot be used");
                continue;
            }
            if listeners.is_empty() && !watched.is_recorded && self.feed.end() {
                return;
            }
            if !listeners.is_empty() && noted.elapsed() >= NOTED {
                noted = Instant::now();
                if let Err(error) = self.store.note_listener().await {
                    tracing::debug!(%error, "that clients listen is not on record");
                }
            }
        }
    }

    async fn tell_news(
        self: &Arc<Self>,
        watched: &mut Watched,
        seen: &mut u64,
        listeners: &[(Client, Asker)],
    ) -> Result<(), StoreError> {
        watched.look(self, !listeners.is_empty());
        while let Some(event) = watched.untold.front() {
            self.store.tell(event.clone()).await?;
            watched.untold.pop_front();
        }
        loop {
            let news = self.store.event_news(*seen).await?;
            if news.is_due {
                self.store.tell_ends().await?;
            }
            *seen = news.page.until;
            self.feed.publish(news.page.events, *seen, news.clients);
            watched.is_recorded = news.recorded_until > Timestamp::now();
            self.ask_for(listeners, &news.submissions);
            if *seen >= news.page.end {
                return Ok(());
            }
        }
    }

    /// Asks after the reviews that clients listen for, each in the name of its own client or else of an
    /// admin, if that may.
    fn ask_for(self: &Arc<Self>, listeners: &[(Client, Asker)], submissions: &[OpenSubmission]) {
        let Ok(status) = action(STATUS) else { return };
        let now = Timestamp::now();
        let may_ask = |client: &Client| client.check(status, self.wallet_of(client), now).is_ok();
        let all: Vec<_> = listeners.iter().filter(|(client, _)| may_ask(client)).collect();
        let of_wallet = |asker: &(Client, Asker), wallet| self.wallet_of(&asker.0) == wallet;
        let own: HashMap<ClientId, _> = all.iter().map(|asker| (asker.0.id, *asker)).collect();
        let asked = submissions.iter().filter_map(|submission| {
            let wallet = submission.wallet;
            let own = own.get(&submission.client).filter(|own| of_wallet(own, wallet));
            let admin = || all.iter().find(|other| other.0.admin && of_wallet(other, wallet));
            own.or_else(admin).map(|(_, asker)| (submission, asker.clone()))
        });
        for key in self.reviews.listen(asked.collect()) {
            tokio::spawn(self.clone().ask_after(key));
        }
    }
}

impl EventListener {
    /// The number of the record up to which all events were told.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Waits for the next event. It can be dropped and called again. `None` at the end: the access of the
    /// client has ended, or the process ends.
    pub async fn next(&mut self) -> Option<Arc<RecordedEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            self.news.borrow_and_update();
            let ((events, seen), is_all) = match self.proxy.feed.after(self.seen) {
                Some(events) => (events, true),
                None => {
                    let (events, seen) = self.read_journal().await?;
                    ((events, seen), seen <= self.seen)
                }
            };
            let is_for = |event: &Arc<RecordedEvent>| event.event.is_for(&self.client, self.wallet);
            let ready: VecDeque<_> = events.into_iter().filter(is_for).collect();
            if !ready.is_empty() && !self.has_access().await {
                return None;
            }
            (self.ready, self.seen) = (ready, seen);
            if !self.ready.is_empty() || !is_all {
                continue;
            }
            tokio::select! {
                _ = self.news.changed() => {}
                () = self.proxy.ending.cancelled() => return None,
            }
            if !self.has_access().await {
                return None;
            }
        }
    }

    /// Whether the client may still listen.
    pub async fn has_access(&self) -> bool {
        self.proxy.identify(&self.evidence).await.is_ok()
    }

    /// The next events of the journal, for a listener that comes back or is slow.
    async fn read_journal(&self) -> Option<(Vec<Arc<RecordedEvent>>, u64)> {
        let page = self.proxy.store.events_after(self.seen).await;
        let page =
            page.inspect_err(|error| tracing::warn!(%error, "a listener is cut off")).ok()?;
        Some((page.events.into_iter().map(Arc::new).collect(), page.until))
    }
}

impl Drop for EventListener {
    fn drop(&mut self) {
        self.proxy.feed.remove(self.number);
    }
}

/// The state of the upstream and the sessions as it was seen last.
struct Watched {
    sessions: BTreeMap<Address, u64>,
    is_unreachable: bool,
    /// When the upstream is asked whether it is back.
    next_probe: Instant,
    pace: Pace,
    /// The events that are not on record yet.
    untold: VecDeque<Event>,
    /// Whether events are recorded.
    is_recorded: bool,
}

impl Watched {
    fn new(proxy: &Proxy) -> Self {
        Self {
            sessions: proxy.sessions_begun(),
            is_unreachable: false,
            next_probe: Instant::now(),
            pace: Pace::default(),
            untold: VecDeque::new(),
            is_recorded: true,
        }
    }

    /// Looks for changes. If clients listen, an upstream that is out of reach is asked now and then whether
    /// it is back: no client may call meanwhile.
    fn look(&mut self, proxy: &Arc<Proxy>, has_listeners: bool) {
        for (wallet, begun) in proxy.sessions_begun() {
            if self.sessions.insert(wallet, begun) != Some(begun) {
                let event = Event::new(EventKind::SessionRenewed);
                self.untold.push_back(Event { wallet: Some(wallet), ..event });
            }
        }
        let is_unreachable = proxy.upstream_seen().unreachable_since.is_some();
        if is_unreachable != self.is_unreachable {
            (self.is_unreachable, self.pace) = (is_unreachable, Pace::default());
            self.next_probe = Instant::now() + self.pace.next_pause();
            self.untold.push_back(Event::new(match is_unreachable {
                true => EventKind::UpstreamUnreachable,
                false => EventKind::UpstreamBack,
            }));
        }
        self.untold.truncate(MOST_UNTOLD);
        if is_unreachable && has_listeners && self.next_probe <= Instant::now() {
            self.next_probe = Instant::now() + self.pace.next_pause();
            let proxy = proxy.clone();
            tokio::spawn(async move { proxy.is_upstream_reached().await });
        }
    }
}
