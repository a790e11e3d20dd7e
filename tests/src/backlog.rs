//! A gateway whose link was gone for so long that an enormous number of records waits.

use std::time::{Duration, Instant};

use agent_core::effect::{Effect, Priority};
use agent_core::event::{Event, EventKind};
use agent_store::{Outcome, OutcomeResult, Store, Uses, Write};
use anyhow::{Context as _, Result, ensure};
use rumqttc::{Client, Incoming, MqttOptions, QoS};
use sync_protocol::records::Stamp;

use crate::gateway::LABEL;
use crate::{Cloud, Edgectl, Gateway, Inlet, Link, World};

/// Bytes of the body of a record that has much to say.
pub const BODY: usize = 1000;

/// Bytes of the body of a record with one reading.
pub const READING: usize = 40;

const FUNCTION: &str = "unit-conversion";
const STREAM: &str = "temperature";
const GROUP: u64 = 1024;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a backlog costs the agent.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// From the start of the program until it takes events; the median of some starts.
    pub start: Duration,
    /// From the first event's PUBLISH to its PUBACK; the median of the same starts.
    pub first_event: Duration,
    /// Bytes of memory (resident, at most) of an agent that started, handled its first event and delivered everything.
    pub peak: u64,
    /// How long the delivery of everything took.
    pub drain: Duration,
}

/// Starts an agent with so many records waiting, each with a body of so many bytes, and no link, several times, gives it an
/// event each time, and then lets it deliver all of them.
///
/// # Errors
/// Something does not start, or the control plane does not get each record once.
pub fn measure(waiting: u64, body: usize, starts: usize) -> Result<Figures> {
    ensure!(starts > 0, "an agent that is never started has no figures");
    let mut world = World::new()?;
    let figures = measure_in(&world, waiting, body, starts);
    if figures.is_err() {
        world.failed();
    }
    figures
}

fn measure_in(world: &World, waiting: u64, body: usize, starts: usize) -> Result<Figures> {
    let cloud = Cloud::start(world)?;
    let link = Link::to(cloud.address())?;
    let operator = Edgectl::new(world, &cloud)?;
    operator.push(FUNCTION)?;
    operator.deploy(FUNCTION, &format!("label:{LABEL}"))?;
    let mut gateway = Gateway::new(world, "gateway", Inlet::Own, link.address(), &operator)?;
    gateway.start()?;
    gateway.wait_for_functions(&[FUNCTION], DEADLINE)?;
    gateway.terminate(DEADLINE)?;
    link.cut();
    fill(world, waiting, body)?;

    let (mut until_started, mut until_acknowledged) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        gateway.kill9();
        let begun = Instant::now();
        gateway.start()?;
        until_started.push(begun.elapsed());
        until_acknowledged.push(event(&gateway)?);
    }
    let expected = waiting + starts as u64;
    let found = gateway.status()?.records.waiting;
    ensure!(found == expected, "{found} records wait in place of {expected}");

    let begun = Instant::now();
    link.restore()?;
    // A slow machine may deliver a thousand records a second.
    gateway.wait_until_drained(DEADLINE + Duration::from_millis(waiting))?;
    let drain = begun.elapsed();
    let peak = gateway.agent()?.peak_memory()?;
    let stats = cloud.stats()?.records;
    let (stored, missing) = (stats.stored, stats.missing);
    ensure!(stored == expected && missing == 0, "{stored} of {expected} records arrived, {missing} are missing");
    Ok(Figures { start: median(until_started), first_event: median(until_acknowledged), peak, drain })
}

/// What the function would have emitted meanwhile, in the store of an agent that does not run.
pub(crate) fn fill(world: &World, waiting: u64, body: usize) -> Result<()> {
    let mut store = Store::open(&world.path("gateway/store"))?;
    let function = store.function(FUNCTION)?;
    let outcome = |number: u64| {
        let body = format!("{{\"celsius\":{number:0width$}}}", width = body - 12).into_bytes();
        Write::Outcome(Outcome {
            function,
            function_name: FUNCTION.into(),
            partition: "thermostat".into(),
            seen: None,
            uses: Uses::Nothing,
            blobs: Vec::new(),
            event: Event::new(EventKind::Mqtt, "thermostat", "sensors/thermostat/temperature", [], 0),
            stamp: Stamp { wall_us: 0, monotonic_us: number, boot: 1, synchronised: false },
            usage: Default::default(),
            result: OutcomeResult::Effects(vec![Effect::Emit {
                stream: STREAM.to_owned(),
                body,
                priority: Priority::Normal,
            }]),
        })
    };
    for group in 0..waiting.div_ceil(GROUP) {
        let numbers = group * GROUP..waiting.min((group + 1) * GROUP);
        store.commit(&numbers.map(outcome).collect::<Vec<_>>())?;
    }
    Ok(())
}

// From PUBLISH to PUBACK.
fn event(gateway: &Gateway) -> Result<Duration> {
    let broker = gateway.broker();
    let options = MqttOptions::new("thermostat", broker.ip().to_string(), broker.port());
    let (client, mut connection) = Client::new(options, 10);
    let mut until = |wanted: fn(&Incoming) -> bool| -> Result<()> {
        for event in connection.iter() {
            if let rumqttc::Event::Incoming(packet) = event.context("the device's connection broke")?
                && wanted(&packet)
            {
                return Ok(());
            }
        }
        anyhow::bail!("the device's connection ended")
    };
    until(|packet| matches!(packet, Incoming::ConnAck(_)))?;
    let begun = Instant::now();
    let payload = r#"{"time":"2013-07-04 00:00:00","fahrenheit":69.88}"#;
    client.publish("sensors/thermostat/temperature", QoS::AtLeastOnce, false, payload)?;
    until(|packet| matches!(packet, Incoming::PubAck(_)))?;
    Ok(begun.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
