//! Events from a broker, and publishes to it.

use std::collections::VecDeque;
use std::time::Duration;

use agent_core::{Effect, Event, Identity};
use device_wire::{DecodeError, Envelope};
use function_abi::{EventKind, PublishFlags};
use rumqttc::{
    AsyncClient, ConnectionError, Event as Happened, EventLoop, Incoming, MqttOptions, NetworkOptions, Outgoing, QoS,
    SubscribeFilter, SubscribeReasonCode,
};

use super::Runner;
use crate::args::Run;
use crate::failure::Failure;
use crate::local::{self, How, Numbering, Ran};
use crate::out::{note, plain};
use crate::time;

/// MQTT without TLS.
const PORT: u16 = 1883;

/// Largest packet in bytes: that of a generous broker. The function's own limits come after it.
const MAX_PACKET_BYTES: usize = 16 << 20;

/// Requests that may wait in the client. What is more waits here.
const REQUESTS: usize = 64;

/// Most publishes that wait to be sent: those of some runs with as many effects as any may have.
const MAX_PENDING: usize = 16_384;

/// How long the last publishes may take at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long to wait before a connection that was lost is sought again.
const AGAIN: Duration = Duration::from_secs(1);

/// Listens until it is interrupted, or has seen as many events as were asked for.
pub(super) async fn listen(runner: &mut Runner<'_>, address: &str, run: &Run) -> Result<(), Failure> {
    let (host, port) = split(address).ok_or_else(|| Failure::Address(address.to_owned()))?;
    let mut options =
        MqttOptions::new(format!("edgectl-{}-{}", std::process::id(), time::now_us() % 1_000_000), host, port);
    options.set_keep_alive(Duration::from_secs(30)).set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
    if let Some(user) = &run.user {
        options.set_credentials(user, std::env::var("EDGECTL_BROKER_PASSWORD").unwrap_or_default());
    }
    let (client, mut events) = AsyncClient::new(options, REQUESTS);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    let filters: Vec<String> = local::filters(runner.local.manifest()).map(str::to_owned).collect();
    if filters.is_empty() {
        return Err(Failure::NoMqtt { function: runner.local.manifest().name.clone() });
    }
    let mut listener = Listener {
        client,
        address: address.to_owned(),
        filters,
        numbering: Numbering::new(run.device_level.map(usize::from), 0),
        publish: run.publish,
        left: run.count,
        was_connected: false,
        pending: VecDeque::new(),
    };
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    while listener.left != Some(0) {
        let happened = tokio::select! {
            // Without signals it can still be killed.
            _ = &mut interrupted => break,
            happened = events.poll() => happened,
        };
        match happened {
            Ok(happened) => {
                listener.take(runner, happened)?;
                // Only while there is a connection, so that its first request finds room.
                listener.send();
            }
            Err(error) if listener.was_connected => {
                note(&format!("edgectl: the connection to {address} was lost: {error}; trying again"));
                tokio::select! {
                    _ = &mut interrupted => break,
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
            Err(error) => return Err(Failure::Broker { address: address.to_owned(), why: error.to_string() }),
        }
    }
    // What is not out by then stays here; whoever interrupts does not want to wait.
    let _ = tokio::time::timeout(FAREWELL, listener.leave(&mut events)).await;
    match listener.pending.len() {
        0 => {}
        left => note(&format!("edgectl: {left} publishes were not sent")),
    }
    Ok(())
}

struct Listener {
    client: AsyncClient,
    address: String,
    filters: Vec<String>,
    numbering: Numbering,
    publish: bool,
    /// Events that are still to come; none: all.
    left: Option<u64>,
    was_connected: bool,
    pending: VecDeque<(String, PublishFlags, Vec<u8>)>,
}

impl Listener {
    fn take(&mut self, runner: &mut Runner<'_>, happened: Happened) -> Result<(), Failure> {
        match happened {
            Happened::Incoming(Incoming::ConnAck(_)) => {
                self.was_connected = true;
                let filters = self.filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
                // The first request of a connection: there is room for it.
                self.client.try_subscribe_many(filters).map_err(|error| self.failed(&error))?;
            }
            Happened::Incoming(Incoming::SubAck(ack)) => {
                let filters = plain(&self.filters.join(", "));
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                    return Err(Failure::NotSubscribed { address: self.address.clone(), filters });
                }
                let sends = if self.publish { "publishes are sent" } else { "publishes are only printed" };
                note(&format!("edgectl: listening at {} to {filters}; {sends}; Ctrl-C ends", self.address));
            }
            Happened::Incoming(Incoming::Publish(publish)) => match self.event(&publish.topic, &publish.payload) {
                Ok(event) => {
                    let ran = runner.give(&event)?;
                    self.left = self.left.map(|left| left - 1);
                    if self.publish {
                        self.queue(ran);
                    }
                }
                Err(error) => note(&format!(
                    "edgectl: a message on {} is passed over: it begins like an event envelope, but {error}",
                    plain(&publish.topic)
                )),
            },
            _ => {}
        }
        Ok(())
    }

    /// A message as a gateway sees it: an envelope is taken off, and without one the topic says who sent it.
    fn event(&self, topic: &str, payload: &[u8]) -> Result<Event, DecodeError> {
        let (device, identity, payload) = match Envelope::decode(payload)? {
            Some(Envelope { device, boot, sequence, payload }) => {
                let source = device.into();
                (device.into(), Some(Identity { source, boot: boot.into(), sequence }), payload)
            }
            None => (self.numbering.device(topic), None, payload),
        };
        let (kind, time_us) = (EventKind::Mqtt, time::now_us());
        Ok(Event {
            kind,
            device,
            topic: topic.into(),
            payload: payload.into(),
            identity,
            time_us,
            attributes: Vec::new(),
        })
    }

    fn queue(&mut self, ran: Ran) {
        let How::Done(effects) = ran.how else { return };
        for effect in effects {
            let Effect::Publish { topic, payload, flags } = effect else { continue };
            if self.pending.len() >= MAX_PENDING {
                note(&format!("edgectl: a publish to {} is not sent: {MAX_PENDING} wait already", plain(&topic)));
                continue;
            }
            self.pending.push_back((topic, flags, payload));
        }
    }

    /// Hands over as many publishes as there is room for; each poll makes some.
    fn send(&mut self) {
        while let Some((topic, flags, payload)) = self.pending.front() {
            let qos = match flags.qos {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            };
            if self.client.try_publish(topic, qos, flags.retain, payload.clone()).is_err() {
                return;
            }
            self.pending.pop_front();
        }
    }

    /// Sends what waits, and says goodbye behind it.
    async fn leave(&mut self, events: &mut EventLoop) -> Result<(), ConnectionError> {
        let mut said = false;
        loop {
            self.send();
            said = said || (self.pending.is_empty() && self.client.try_disconnect().is_ok());
            if let Happened::Outgoing(Outgoing::Disconnect) = events.poll().await? {
                return Ok(());
            }
        }
    }

    fn failed(&self, error: &rumqttc::ClientError) -> Failure {
        Failure::Broker { address: self.address.clone(), why: error.to_string() }
    }
}

/// `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':').map(str::parse).or(port.is_empty().then_some(Ok(PORT)))?)
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, port.parse()),
            None => (address, Ok(PORT)),
        },
    };
    let good = !host.is_empty() && !host.contains('/');
    Some((host, port.ok().filter(|port| *port > 0)?)).filter(|_| good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_perhaps_a_port() {
        assert_eq!(split("gw"), Some(("gw", 1883)));
        assert_eq!(split("10.0.0.1:2883"), Some(("10.0.0.1", 2883)));
        assert_eq!(split("[::1]:2883"), Some(("::1", 2883)));
        assert_eq!(split("[::1]"), Some(("::1", 1883)));
        for wrong in ["", ":1883", "gw:", "gw:0", "gw:70000", "mqtt://gw", "[::1", "[::1]x", "::1"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
