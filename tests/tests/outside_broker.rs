//! A broker that somebody else runs: what it was told to keep reaches the cloud once, also through `kill -9` of the agent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, Incoming, MqttOptions, QoS, v5};
use system_tests::{Device, Inlet, Mosquitto, Summary, System, World, oracle, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(60);

const READINGS: usize = 900;

/// `None`: there is no mosquitto, which was said.
fn system() -> Option<(System, Mosquitto)> {
    let world = World::new().unwrap();
    let broker = Mosquitto::start(&world).unwrap()?;
    let inlet = Inlet::Outside(broker.address());
    let system = System::start(world, inlet, &["unit-conversion", "rolling-mean"]).unwrap();
    Some((system, broker))
}

fn wait_for_runs(system: &System, runs: u64) {
    wait_until("functions to run", DEADLINE, || {
        let handled = system.gateway.status().map_err(|error| format!("{error:#}"))?.events.handled;
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
