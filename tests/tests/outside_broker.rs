//! A broker that somebody else runs: what it was told to keep reaches the cloud once, also through `kill -9` of the agent.
//!
//! When mosquitto itself is killed, it loses some of what it acknowledged. So then it is not what devices were told that
//! holds, but:
//!
//! - what the **agent** acknowledged to the broker is in the cloud, once;
//! - nothing is in the cloud twice, whatever comes again;
//! - what is published when the broker is back and has the agent's subscriptions arrives, once;
//! - what a function published reaches a subscriber at least once.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, Incoming, MqttOptions, QoS, v5};
use system_tests::{
    Device, Inlet, Link, Mosquitto, Replay, Sessions, Status, Summary, System, Witness, World, oracle, wait_until,
};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(60);

const READINGS: usize = 900;

const FUNCTIONS: [&str; 2] = ["unit-conversion", "rolling-mean"];

/// `None`: there is no mosquitto, which was said.
fn system() -> Option<(System, Mosquitto)> {
    let world = World::new().unwrap();
    let broker = Mosquitto::start(&world, Sessions::SavedAtStop).unwrap()?;
    let inlet = Inlet::Outside(broker.address());
    let system = System::start(world, inlet, &FUNCTIONS).unwrap();
    Some((system, broker))
}

fn status(system: &System) -> Result<Status, String> {
    system.gateway.status().map_err(|error| format!("{error:#}"))
}

fn wait_for_runs(system: &System, runs: u64) {
    wait_until("functions to run", DEADLINE, || {
        let handled = status(system)?.events.handled;
        if handled >= runs { Ok(()) } else { Err(format!("{handled} of {runs} runs")) }
    })
    .unwrap();
}

fn assert_every_event_once(system: &System, mut devices: Vec<Device>) {
    let devices: Vec<Summary> = devices.iter_mut().map(|device| device.finish(DEADLINE).unwrap()).collect();
    // What the broker acknowledged to the devices may not have come to the agent yet.
    let expected = (devices.len() * READINGS) as u64;
    wait_until("all events in the cloud", DEADLINE, || {
        let there = system.cloud.records("temperature").map_err(|error| format!("{error:#}"))?.len() as u64;
        if there >= expected { Ok(()) } else { Err(format!("{there} of {expected}")) }
    })
    .unwrap();
    system.gateway.wait_until_drained(DEADLINE).unwrap();
    oracle::assert_exact(&devices, &system.cloud.records("temperature").unwrap());
    let means = system.cloud.records("means").unwrap();
    assert_eq!(means.len(), devices.len() * READINGS / 6);
}

#[test]
fn events_take_effect_once_through_kill_9_and_sigterm_of_the_agent() {
    let Some((mut system, _broker)) = system() else { return };
    let start = |number| system.device(&format!("thermostat-{number}"), None, 300.0, Some(READINGS)).unwrap();
    let devices: Vec<Device> = (1..=2).map(start).collect();
    for _ in 0..2 {
        wait_for_runs(&system, 200);
        system.gateway.kill9();
        system.gateway.start().unwrap();
    }
    wait_for_runs(&system, 200);
    let status = system.gateway.terminate(Duration::from_secs(20)).unwrap();
    assert!(status.success(), "{status}");
    system.gateway.start().unwrap();
    assert_every_event_once(&system, devices);
}

#[test]
fn events_take_effect_once_through_a_restart_of_the_broker() {
    let Some((system, mut broker)) = system() else { return };
    let start = |number| system.device(&format!("thermostat-{number}"), None, 300.0, Some(READINGS)).unwrap();
    let devices: Vec<Device> = (1..=2).map(start).collect();
    for runs in [300, 900] {
        wait_for_runs(&system, runs);
        broker.stop().unwrap();
        broker.restart().unwrap();
    }
    assert_every_event_once(&system, devices);
}

#[test]
fn what_functions_publish_reaches_the_brokers_subscribers() {
    let Some((system, broker)) = system() else { return };
    let mut device = system.device("thermostat-1", None, 1_000.0, Some(50)).unwrap();
    device.finish(DEADLINE).unwrap();
    // Retained by the broker, so it is there whenever somebody asks.
    let message = first_message(broker.address(), "celsius/thermostat-1");
    assert!(message.contains("celsius"), "{message}");
}

#[test]
fn the_gateways_own_broker_gives_subscribers_what_functions_publish() {
    let system = System::start(World::new().unwrap(), Inlet::Own, &["unit-conversion"]).unwrap();
    let mut device = system.device("thermostat-1", None, 1_000.0, Some(50)).unwrap();
    device.finish(DEADLINE).unwrap();
    let message = first_message(system.gateway.broker(), "celsius/thermostat-1");
    assert!(message.contains("celsius"), "{message}");

    // With MQTT 5 it has a number, by which a subscriber tells one that it had before.
    let mut options = v5::MqttOptions::new("subscriber", "127.0.0.1", system.gateway.broker().port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut connection) = v5::Client::new(options, 10);
    client.subscribe("celsius/thermostat-1", v5::mqttbytes::QoS::AtLeastOnce).unwrap();
    let properties = loop {
        let event = connection.recv_timeout(DEADLINE).expect("a message before the deadline").unwrap();
        if let v5::Event::Incoming(v5::Incoming::Publish(publish)) = event {
            break publish.properties.unwrap().user_properties;
        }
    };
    let [(boot, epoch), (sequence, number)] = &properties[..] else { panic!("{properties:?}") };
    assert_eq!((boot.as_str(), sequence.as_str()), ("event-boot", "event-sequence"));
    // It is retained, so it is the last of those of fifty events.
    assert!(epoch.parse::<u64>().unwrap() > 0 && number.parse::<u64>().unwrap() == 50, "{properties:?}");
}

/// The first message that a subscriber of this topic gets.
fn first_message(broker: SocketAddr, topic: &str) -> String {
    let mut options = MqttOptions::new("subscriber", broker.ip().to_string(), broker.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut connection) = Client::new(options, 10);
    client.subscribe(topic, QoS::AtLeastOnce).unwrap();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = connection.recv_timeout(left).expect("a message before the deadline").unwrap();
        if let Event::Incoming(Incoming::Publish(publish)) = event {
            return String::from_utf8(publish.payload.to_vec()).unwrap();
        }
    }
}

#[test]
fn a_broker_that_is_killed_and_keeps_its_sessions_costs_nothing_that_the_agent_had() {
    through_kills_of_the_broker(Sessions::SavedAtOnce);
}

#[test]
fn a_broker_that_is_killed_and_forgets_its_sessions_costs_nothing_that_the_agent_had() {
    through_kills_of_the_broker(Sessions::InMemory);
}

const KILLS: usize = 2;

fn through_kills_of_the_broker(sessions: Sessions) {
    let world = World::new().unwrap();
    let Some(mut broker) = Mosquitto::start(&world, sessions).unwrap() else { return };
    let address = broker.address();
    let witness = Witness::of(address).unwrap();
    let link = Link::to(witness.address()).unwrap();
    let system = System::start(world, Inlet::Outside(link.address()), &FUNCTIONS).unwrap();
    let subscriber = Subscriber::new(address);
    wait_for_more("the first subscription", 0, || subscriber.subscriptions());
    let device = |name: &str, readings| {
        let (device, limit) = (name.to_owned(), Some(readings));
        let replay = Replay { device, broker: address, recording: None, rate: 200.0, limit };
        Device::start(&system.world, &replay).unwrap()
    };

    let mut during = device("during", 1_000);
    let mut whole = Vec::new();
    for kill in 1..=KILLS {
        wait_for_runs(&system, status(&system).unwrap().events.handled + 200);
        // What functions publish from now on is sent, and never comes to the broker.
        witness.mute_agent();
        wait_for_more("publishes on the way", witness.swallowed(), || witness.swallowed());
        broker.kill9();
        link.cut();
        let (agents, subscribers) = (witness.subscriptions(), subscriber.subscriptions());
        broker.restart().unwrap();
        let away = (sessions == Sessions::SavedAtOnce).then(|| {
            // The broker has the agent's session, and so keeps what is published while the agent is away.
            device(&format!("away-{kill}"), 100).finish(DEADLINE).unwrap()
        });
        // Before the agent comes, so that nothing is published to nobody.
        wait_for_more("the subscriber to come back", subscribers, || subscriber.subscriptions());
        witness.unmute_agent();
        link.restore().unwrap();
        wait_for_more("the agent to subscribe again", agents, || witness.subscriptions());
        if let Some(away) = away {
            wait_until("what was kept for the agent to be acknowledged", DEADLINE, || {
                let unseen =
                    (1..=away.published).find(|event| !witness.saw_acknowledged(&away.device, away.boot, *event));
                unseen.map_or(Ok(()), |event| Err(format!("event {event} is not")))
            })
            .unwrap();
            whole.push(away);
        }
    }
    let during = during.finish(DEADLINE).unwrap();
    whole.push(device("after", 200).finish(DEADLINE).unwrap());

    wait_until("the agent to be done", DEADLINE, || {
        let Status { events, records, .. } = status(&system)?;
        let arrived = whole.last().is_some_and(|after| {
            (1..=after.published).all(|event| witness.saw_acknowledged(&after.device, after.boot, event))
        });
        let runs = events.handled + events.duplicates + events.dead;
        let all = events.received * FUNCTIONS.len() as u64;
        if arrived && runs == all && records.waiting == 0 { Ok(()) } else { Err(format!("{events:?} {records:?}")) }
    })
    .unwrap();
    let records = system.cloud.records("temperature").unwrap();
    oracle::assert_exact(&whole, &records);
    let account = oracle::judge(&[during], &records).remove(0);
    assert!(account.doubled.is_empty() && account.invented.is_empty(), "{account:?}");
    let is_lost = |event: &u64| witness.saw_acknowledged("during", account.boot, *event);
    let lost: Vec<&u64> = account.missing.iter().filter(|event| is_lost(event)).collect();
    assert!(lost.is_empty(), "the agent acknowledged {lost:?} to the broker, and the cloud does not have them");
    assert!(account.once > 300, "{account:?}");
    let end = status(&system).unwrap();
    assert_eq!(end.records.alarms, 0, "{end:?}");
    // A mosquitto that saves its sessions brings back hundreds of events that the agent had acknowledged to it. Those from
    // further back than deduplication remembers are dead letters; nothing that comes for the first time is.
    let repeated = witness.repeated() * FUNCTIONS.len() as u64;
    assert!(end.dead_letters <= repeated, "{repeated} runs of events that came again; {end:?}");

    // Each event that was handled has a record, and a publish with the same time, of the same transaction.
    wait_until("the subscriber to have all that functions published", DEADLINE, || {
        let seen = subscriber.0.lock().unwrap();
        let time = |body: &serde_json::Value| body["time"].as_str().unwrap_or_default().to_owned();
        let missing =
            records.iter().filter(|record| !seen.times.contains(&(record.device.clone(), time(&record.body))));
        let missing: Vec<_> = missing.map(|record| (&record.device, record.event)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("it misses those of {missing:?}")) }
    })
    .unwrap();

    // The broker did with its sessions what this test is about.
    let log = fs::read_to_string(system.world.logs().join("gateway.log")).unwrap();
    let kept = log.matches("session_present=true").count();
    assert_eq!(kept, if sessions == Sessions::SavedAtOnce { KILLS } else { 0 });
}

fn wait_for_more(what: &str, than: u64, count: impl Fn() -> u64) {
    wait_until(what, DEADLINE, || if count() > than { Ok(()) } else { Err(format!("still {}", count())) }).unwrap();
}

/// A subscriber of everything that `unit-conversion` publishes. It subscribes again whenever the broker is back.
///
/// With QoS 0: so mosquitto writes a message to it before it acknowledges that message to the agent, and keeps none for it
/// that it would lose when it is killed.
struct Subscriber(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    subscriptions: u64,
    // With devices.
    times: BTreeSet<(String, String)>,
}

impl Subscriber {
    fn new(broker: SocketAddr) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let writes = Arc::downgrade(&seen);
        let mut options = MqttOptions::new("subscriber", broker.ip().to_string(), broker.port());
        options.set_keep_alive(Duration::from_secs(5));
        let (client, mut connection) = Client::new(options, 10);
        thread::spawn(move || {
            for event in connection.iter() {
                // Until the test is over.
                let Some(seen) = writes.upgrade() else { return };
                match event {
                    Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                        client.subscribe("celsius/+", QoS::AtMostOnce).unwrap()
                    }
                    Ok(Event::Incoming(Incoming::SubAck(_))) => seen.lock().unwrap().subscriptions += 1,
                    Ok(Event::Incoming(Incoming::Publish(publish))) => {
                        let body: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
                        let device = publish.topic.trim_start_matches("celsius/").to_owned();
                        seen.lock().unwrap().times.insert((device, body["time"].as_str().unwrap().to_owned()));
                    }
                    Ok(_) => {}
                    // The broker is away, and each attempt is refused at once.
                    Err(_) => thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Self(seen)
    }

    fn subscriptions(&self) -> u64 {
        self.0.lock().unwrap().subscriptions
    }
}
