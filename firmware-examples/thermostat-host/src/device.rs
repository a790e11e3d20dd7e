use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use device_sdk::{Action, MAX_HEADER_BYTES, Session, Settings, Token, WhenFull};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::args::Args;
use crate::link::{Link, LinkError, Report};
use crate::summary::Summary;
use crate::thermostat::Thermostat;

/// Readings that are kept while there is no connection. A replay pauses when they are all taken; a live
/// thermostat drops the oldest.
const EVENTS: usize = 256;

/// The longest payload: `{"time":"2013-07-04T00:00:00Z","fahrenheit":-198.40}` has 52 bytes.
const PAYLOAD: usize = 64;

/// How often progress is printed.
const PROGRESS: Duration = Duration::from_secs(1);

/// How far production may lag behind its rate and still catch up; beyond that (a full queue, a suspended
/// machine) the lag is forgotten, so that no burst follows.
const CATCH_UP: Duration = Duration::from_millis(100);

/// A gateway is near: it is worth trying again sooner than the SDK's defaults do.
const BACKOFF_MIN_MS: u32 = 100;
const BACKOFF_MAX_MS: u32 = 5_000;

/// The program between its start and its summary.
pub(crate) struct Device<'a> {
    args: &'a Args,
    boot: u32,
    topic: String,
    started: Instant,
}

/// What the loop changes as it goes.
struct Progress {
    link: Option<Link>,
    first_ack_ms: Option<u64>,
    last_ack_ms: Option<u64>,
}

type ThermostatSession<'a> = Session<'a, EVENTS, PAYLOAD>;

impl<'a> Device<'a> {
    pub(crate) fn new(args: &'a Args, boot: u32) -> Self {
        Self { args, boot, topic: args.topic(), started: Instant::now() }
    }

    /// Publishes all readings; returns when they are acknowledged, or some time after a signal.
    pub(crate) async fn run(&self, mut thermostat: Thermostat) -> anyhow::Result<Summary> {
        let settings = Settings {
            window: usize::from(self.args.window),
            when_full: if thermostat.is_live() { WhenFull::DropOldestUnsent } else { WhenFull::Refuse },
            backoff_min_ms: BACKOFF_MIN_MS,
            backoff_max_ms: BACKOFF_MAX_MS,
            ..Settings::new(self.args.seed())
        };
        let mut session = ThermostatSession::new(&self.args.device, self.boot, settings)?;
        let mut progress = Progress { link: None, first_ack_ms: None, last_ack_ms: None };

        let period = Duration::from_secs_f64(1.0 / self.args.rate);
        let mut due = Instant::now();
        let mut exhausted = false;
        let mut stop = std::pin::pin!(stop_signal()?);
        let drain = Duration::from_secs(self.args.drain.into());
        let mut give_up: Option<Instant> = None;
        let mut print = Instant::now() + PROGRESS;

        loop {
            let wake = self.act(&mut session, &mut progress)?;
            let producing = !exhausted && give_up.is_none();
            if !producing && session.pending() == 0 {
                break;
            }
            let may_publish = thermostat.is_live() || session.has_room();
            tokio::select! {
                report = next_report(&mut progress.link) => self.take(report, &mut session, &mut progress),
                () = sleep_until(due), if producing && may_publish => {
                    due = (due + period).max(Instant::now() - CATCH_UP);
                    exhausted = !self.publish_reading(&mut thermostat, &mut session)?;
                }
                () = sleep_until_some(wake) => {}
                () = sleep_until_some(give_up) => break,
                () = &mut stop, if give_up.is_none() => give_up = Some(Instant::now() + drain),
                () = sleep_until(print), if self.args.verbose => {
                    print += PROGRESS;
                    let counters = session.counters();
                    info!(
                        published = counters.accepted,
                        acknowledged = counters.acknowledged,
                        pending = session.pending(),
                        "progress"
                    );
                }
            }
        }
        if let Some(link) = progress.link.take() {
            link.close().await;
        }
        Ok(self.summary(&session, &progress))
    }

    /// Does what the session says, until it waits. Returns until when.
    fn act(&self, session: &mut ThermostatSession, progress: &mut Progress) -> anyhow::Result<Option<Instant>> {
        let mut packet = [0; MAX_HEADER_BYTES + PAYLOAD];
        loop {
            match session.poll(self.now()) {
                Action::Connect => progress.link = Some(Link::open(&self.args.broker, &self.args.device)),
                Action::Send(out) => {
                    let length = out.envelope.encode(&mut packet).context("cannot encode an event")?;
                    let sent = match &mut progress.link {
                        Some(link) => link.publish(out.token, out.topic, &packet[..length]),
                        None => Err(LinkError::Closed),
                    };
                    if let Err(error) = sent {
                        self.take(Report::Lost(error), session, progress);
                    }
                }
                Action::Disconnect => {
                    warn!("the connection makes no progress and is given up");
                    progress.link = None;
                }
                Action::Wait { until } => {
                    return Ok(until.map(|until| self.started + Duration::from_millis(until)));
                }
            }
        }
    }

    /// Tells the session what happened.
    fn take(&self, report: Report, session: &mut ThermostatSession, progress: &mut Progress) {
        match report {
            Report::Connected { session_present } => {
                info!(host = self.args.broker.host, port = self.args.broker.port, "connected");
                session.connected(self.now(), session_present);
            }
            Report::Acknowledged(token) => self.acknowledged(token, session, progress),
            Report::Lost(error) => {
                let reason = anyhow::Error::new(error);
                warn!(host = self.args.broker.host, port = self.args.broker.port, "no connection: {reason:#}");
                progress.link = None;
                session.disconnected(self.now());
            }
        }
    }

    fn acknowledged(&self, token: Token, session: &mut ThermostatSession, progress: &mut Progress) {
        if session.acknowledged(self.now(), token) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
            progress.first_ack_ms.get_or_insert(now);
            progress.last_ack_ms = Some(now);
        }
    }

    /// Measures and hands over one reading. Returns false when there are no more.
    fn publish_reading<'s>(
        &'s self,
        thermostat: &mut Thermostat,
        session: &mut ThermostatSession<'s>,
    ) -> anyhow::Result<bool> {
        let Some(reading) = thermostat.next_reading()? else { return Ok(false) };
        let text = format_args!(r#"{{"time":"{}","fahrenheit":{:.2}}}"#, reading.time, reading.fahrenheit);
        session.publish_text(&self.topic, text).with_context(|| format!("cannot publish to {:?}", self.topic))?;
        Ok(true)
    }

    fn summary(&self, session: &ThermostatSession, progress: &Progress) -> Summary {
        let counters = session.counters();
        Summary {
            device: self.args.device.clone(),
            boot: self.boot,
            published: counters.accepted,
            acknowledged: counters.acknowledged,
            unacknowledged: session.pending() as u64,
            dropped: counters.dropped,
            resent: counters.resent,
            reconnects: counters.connections.saturating_sub(1),
            first_ack_ms: progress.first_ack_ms,
            last_ack_ms: progress.last_ack_ms,
        }
    }

    /// The session's clock: milliseconds since the program started.
    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

async fn next_report(link: &mut Option<Link>) -> Report {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until_some(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Resolves at the first SIGINT or SIGTERM.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let cannot = "cannot listen for SIGINT and SIGTERM";
    let mut interrupt = signal(SignalKind::interrupt()).context(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).context(cannot)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
