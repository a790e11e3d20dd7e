//! The gateway: its real store, driven by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use agent_core::effect::{Effect, Priority};
use agent_core::event::{Event, EventKind};
use agent_core::retention::Retention;
use agent_store::{FunctionId, Outcome, OutcomeResult, Reader, Store, Write};
use anyhow::{Result, bail, ensure};
use edge_agent::keeper::keeping::{Commit, Keeping, named};
use edge_agent::uplink::delivery::{Allowed, Delivery, Sending, Step};
use sync_protocol::records::Stamp;
use tempfile::TempDir;

use super::link::{Fate, Link};
use super::report::Report;
use crate::Cloud;
use crate::crash::Dice;

/// Of no policy, with a quota, with a time to live, always of high priority.
pub(super) const STREAMS: [&str; 4] = ["plain", "limited", "short-lived", "urgent"];

/// Turns after which everything must be delivered, on a link that is whole.
const TURNS: usize = 10_000;

#[derive(Debug)]
pub(super) struct Gateway {
    link: Link,
    retention: Arc<Retention>,
    bytes_per_second: Option<u64>,
    // Always there; one ends before the next begins.
    life: Option<Life>,
    now: Stamp,
    // By stream: how many records functions emitted. The body of each is its number, and no two are the same.
    emitted: BTreeMap<&'static str, u64>,
    number: u64,
    report: Report,
    // The last, so that nothing has a file open when it goes.
    dir: TempDir,
}

/// What a crash takes with it.
#[derive(Debug)]
struct Life {
    store: Store,
    reader: Reader,
    function: FunctionId,
    delivery: Delivery,
    keeping: Keeping,
}

impl Life {
    fn begin(dir: &Path, retention: &Arc<Retention>, bytes_per_second: Option<u64>) -> Result<Self> {
        let mut store = Store::open(dir)?;
        let (reader, function) = (store.reader()?, store.function("simulation")?);
        let delivery = Delivery::new(store.epoch(), bytes_per_second);
        Ok(Self { store, reader, function, delivery, keeping: Keeping::new(retention.clone()) })
    }

    fn commit(&mut self, retention: &Retention, writes: &[Write]) -> Result<()> {
        self.store.commit(writes)?;
        let refused = retention.refused(named(self.store.usage()));
        self.store.refuse(refused);
        Ok(())
    }
}

struct Drops<'a> {
    store: &'a mut Store,
    retention: &'a Retention,
}

impl Commit for Drops<'_> {
    async fn commit(&mut self, write: Write) -> bool {
        let committed = self.store.commit(&[write]).is_ok();
        self.store.refuse(self.retention.refused(named(self.store.usage())));
        committed
    }
}

impl Gateway {
    pub(super) fn new(link: Link, retention: Arc<Retention>, bytes_per_second: Option<u64>) -> Result<Self> {
        // In memory where there is such a place: what is tried here is no disk.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { TempDir::new_in(memory)? } else { TempDir::new()? };
        let now = Stamp { wall_us: 0, monotonic_us: 0, boot: 1, synchronised: false };
        let life = Some(Life::begin(dir.path(), &retention, bytes_per_second)?);
        let (emitted, report) = (BTreeMap::new(), Report::default());
        let mut gateway = Self { link, retention, bytes_per_second, life, now, emitted, number: 0, report, dir };
        gateway.note_power()?;
        Ok(gateway)
    }

    /// Time goes by.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now.monotonic_us += time.as_micros() as u64;
    }

    fn commit(&mut self, writes: &[Write]) -> Result<()> {
        let retention = self.retention.clone();
        self.life().commit(&retention, writes)
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("a life that ends is followed by the next one")
    }

    fn note_power(&mut self) -> Result<()> {
        self.commit(&[Write::Powered { boot: self.now.boot, monotonic_us: self.now.monotonic_us }])
    }

    /// Functions emit some records, in one commit.
    pub(super) fn emit(&mut self, dice: &mut Dice) -> Result<()> {
        // Now and then more than a backlog is.
        let count = if dice.below(40) == 0 { 5_000 } else { 1 + dice.below(60) };
        let writes: Vec<Write> = (0..count).map(|_| self.outcome(dice)).collect();
        self.commit(&writes)
    }

    fn outcome(&mut self, dice: &mut Dice) -> Write {
        let stream = STREAMS[dice.below(4) as usize];
        *self.emitted.entry(stream).or_default() += 1;
        self.number += 1;
        let mut body = self.number.to_string().into_bytes();
        body.resize(body.len() + dice.below(200) as usize, b' ');
        let priority = if dice.below(10) == 0 { Priority::High } else { Priority::Normal };
        let mut effects = vec![Effect::Emit { stream: stream.to_owned(), body, priority }];
        self.retention.prioritise(&mut effects);
        Write::Outcome(Outcome {
            function: self.life().function,
            function_name: "simulation".into(),
            partition: "p".into(),
            seen: None,
            uses: agent_store::Uses::Nothing,
            blobs: Vec::new(),
            event: Event::new(EventKind::Mqtt, "d", "t", [], 0),
            stamp: self.now,
            usage: Default::default(),
            result: OutcomeResult::Effects(effects),
        })
    }

    /// One turn of the uplink, on a link of which the dice decide.
    pub(super) fn deliver(&mut self, dice: &mut Dice) -> Result<()> {
        self.link.perhaps_late(dice)?;
        let busy = dice.below(2) == 0;
        self.turn(Fate::draw, dice, busy)?;
        Ok(())
    }

    // Returns false if there is nothing to do. If it is busy, functions go on while requests are on their way. As the
    // uplink does, it gives up what is still on its way when one request failed.
    fn turn(&mut self, fate: impl Fn(&mut Dice) -> Fate, dice: &mut Dice, busy: bool) -> Result<bool> {
        let now_us = self.now.monotonic_us;
        let wait = self.life().delivery.wait(now_us);
        self.pass(wait);
        let (mut on_the_way, mut more, mut sent) = (Vec::new(), 1 + dice.below(6), false);
        loop {
            let mut sendings = Vec::new();
            while more > 0
                && let Some(sending) = self.next(!sendings.is_empty() || !on_the_way.is_empty())?
            {
                more -= 1;
                // What is emitted now may go with the next one.
                if busy && dice.below(2) == 0 {
                    self.emit(dice)?;
                }
                sendings.insert(dice.below(sendings.len() as u64 + 1) as usize, sending);
            }
            // They may pass each other.
            for sending in sendings {
                let fate = fate(dice);
                self.report.request(&sending.request, fate);
                self.report.overlapping += u64::from(!on_the_way.is_empty());
                sent = true;
                on_the_way.push((sending.flight, fate, self.link.send(&sending.request, fate, dice)?));
            }
            if on_the_way.is_empty() {
                return Ok(sent);
            }
            let (flight, fate, heard) = on_the_way.remove(dice.below(on_the_way.len() as u64) as usize);
            let longest = if dice.below(4) == 0 { 3_000 } else { 300 };
            let took = Duration::from_millis(dice.below(longest));
            if busy {
                self.emit(dice)?;
            }
            self.pass(took);
            let (now_us, bytes) = (self.now.monotonic_us, 1_000);
            let delivery = &mut self.life().delivery;
            let Some(reply) = heard else {
                delivery.failed();
                delivery.gave_up();
                return Ok(true);
            };
            match delivery.answered(flight, &reply, now_us, took, bytes) {
                Ok(confirmed) => {
                    ensure!(fate == Fate::Answered, "{fate:?} was believed: {reply:?}");
                    for write in confirmed.writes {
                        self.commit(&[write])?;
                        if busy && dice.below(50) == 0 {
                            self.crash()?;
                            return Ok(true);
                        }
                    }
                }
                Err(alarm) => {
                    ensure!(fate != Fate::Answered, "a true answer was not believed: {alarm}");
                    delivery.gave_up();
                    self.report.alarms += 1;
                    return Ok(true);
                }
            }
            // Whoever pays by the byte waits before the next one.
            if self.life().delivery.wait(now_us) > Duration::ZERO {
                more = 0;
            }
        }
    }

    fn next(&mut self, something_is_on_its_way: bool) -> Result<Option<Sending>> {
        let Life { delivery, reader, .. } = self.life();
        match delivery.next(reader, Allowed::All)? {
            Step::Send(sending) => Ok(Some(*sending)),
            Step::Wait if something_is_on_its_way => Ok(None),
            Step::Idle if !something_is_on_its_way => Ok(None),
            Step::PassOver { damage, .. } => bail!("nothing is damaged here, and yet: {damage}"),
            step => bail!("with something on its way {something_is_on_its_way}: {step:?}"),
        }
    }

    /// What must go is dropped.
    pub(super) fn keep(&mut self) -> Result<()> {
        self.note_power()?;
        let (retention, now) = (self.retention.clone(), self.now);
        let Life { store, reader, keeping, .. } = self.life();
        let mut drops = Drops { store, retention: &retention };
        let round = keeping.round(reader, now, &mut drops);
        // Nothing in it waits for anything.
        match pin!(round).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(kept) => Ok(kept?),
            Poll::Pending => bail!("keeping waits for something that is not there"),
        }
    }

    /// The agent ends, at any moment between two commits, and starts again.
    pub(super) fn crash(&mut self) -> Result<()> {
        // The lock on the store goes with it.
        self.life = None;
        self.life = Some(Life::begin(self.dir.path(), &self.retention, self.bytes_per_second)?);
        Ok(())
    }

    /// The gateway is without power for a while, and starts again.
    pub(super) fn reboot(&mut self, dice: &mut Dice) -> Result<()> {
        self.now = Stamp { monotonic_us: dice.below(60_000_000), boot: self.now.boot + 1, ..self.now };
        self.crash()?;
        self.note_power()
    }

    /// The link is whole from now on, until nothing waits.
    pub(super) fn settle(&mut self) -> Result<()> {
        let mut dice = Dice::new(0);
        for _ in 0..TURNS {
            if !self.turn(|_| Fate::Answered, &mut dice, false)? {
                return Ok(());
            }
        }
        bail!("after {TURNS} turns on a whole link something still waits")
    }

    /// Compares what functions emitted with what the control plane has, and with what it knows to be gone.
    pub(super) fn judge(mut self, seed: u64, cloud: &Cloud) -> Result<Report> {
        let mut report = std::mem::take(&mut self.report);
        report.seed = seed;
        let of_gateway = cloud.gateway(&self.link.gateway)?;
        report.expect("records that the control plane misses", 0, of_gateway.records.missing);
        report.expect("records that came with another content", 0, of_gateway.records.conflicts);
        for (stream, emitted) in &self.emitted {
            let records = cloud.records_of(&self.link.gateway, stream)?;
            let bodies: BTreeSet<_> = records.iter().filter_map(|record| record.body.as_u64()).collect();
            report.expect(&format!("different records of stream {stream}"), records.len() as u64, bodies.len() as u64);
            let dropped = of_gateway.gone.iter().filter(|tally| tally.stream == *stream).map(|tally| tally.count).sum();
            let delivered = records.len() as u64;
            report.expect(&format!("records of stream {stream}, delivered or dropped"), *emitted, delivered + dropped);
            if self.retention.outbox.is_none() && !self.retention.streams.contains_key(*stream) {
                report.expect(&format!("records dropped of stream {stream}, which no policy limits"), 0, dropped);
            }
            report.emitted += emitted;
            report.delivered += delivered;
            report.dropped += dropped;
        }
        let left: u64 = self.life().reader.usage()?.iter().map(|stream| stream.records).sum();
        report.expect("records that still wait", 0, left);
        Ok(report)
    }
}
