//! Somebody who sees what an agent and its outside broker say to each other.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Result;
use device_wire::Envelope;

use crate::proxy::mqtt::Packet;
use crate::proxy::{Passage, Proxy, end};

/// A proxy between agent and broker that remembers what the agent acknowledged to the broker.
#[derive(Debug)]
pub struct Witness {
    proxy: Proxy<Seen>,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    // By device, boot and sequence.
    acknowledged: BTreeSet<Event>,
    delivered: BTreeSet<Event>,
    // Deliveries of events that had been delivered before.
    repeated: u64,
    subscriptions: u64,
    muted: bool,
    swallowed: u64,
}

impl Witness {
    /// Somebody in front of this broker.
    ///
    /// # Errors
    /// The proxy cannot listen.
    pub fn of(broker: SocketAddr) -> Result<Self> {
        let seen = Arc::<Seen>::default();
        Ok(Self { proxy: Proxy::new(broker, Arc::clone(&seen))?, seen })
    }

    /// Where the agent connects.
    pub fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// Whether the agent acknowledged this event to the broker: device, boot and sequence.
    pub fn saw_acknowledged(&self, device: &str, boot: u32, sequence: u64) -> bool {
        self.seen.state().acknowledged.contains(&(device.to_owned(), boot, sequence))
    }

    /// How often the broker delivered an event that it had delivered before.
    pub fn repeated(&self) -> u64 {
        self.seen.state().repeated
    }

    /// How often the broker confirmed subscriptions of the agent.
    pub fn subscriptions(&self) -> u64 {
        self.seen.state().subscriptions
    }

    /// From now on nothing that the agent says reaches the broker, and the agent does not know.
    pub fn mute_agent(&self) {
        self.seen.state().muted = true;
    }

    /// From now on the broker hears the agent again, on new connections.
    pub fn unmute_agent(&self) {
        self.seen.state().muted = false;
    }

    /// How many publishes of the agent the broker was kept from.
    pub fn swallowed(&self) -> u64 {
        self.seen.state().swallowed
    }
}

impl Seen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_broker(&self, near: &TcpStream, far: &TcpStream, sent: &Mutex<Sent>) -> io::Result<()> {
        let mut packets = BufReader::new(near);
        let mut cut = false;
        loop {
            let packet = Packet::read(&mut packets)?;
            {
                let mut state = self.state();
                // What is missing stays missing for the life of a connection.
                cut |= state.muted;
                if cut {
                    state.swallowed += u64::from(packet.is_publish());
                    continue;
                }
                if let Some(event) = packet.identifier().filter(|_| packet.is_puback()) {
                    state.acknowledged.extend(events(sent).remove(&event));
                }
            }
            packet.pass(far)?;
        }
    }

    fn to_agent(&self, near: &TcpStream, far: &TcpStream, sent: &Mutex<Sent>) -> io::Result<()> {
        let mut packets = BufReader::new(far);
        loop {
            let packet = Packet::read(&mut packets)?;
            if let (Some(identifier), Some(event)) = (packet.identifier(), event(&packet)) {
                let mut state = self.state();
                state.repeated += u64::from(!state.delivered.insert(event.clone()));
                drop(state);
                events(sent).insert(identifier, event);
            }
            packet.pass(near)?;
            self.state().subscriptions += u64::from(packet.is_suback());
        }
    }
}

// By packet identifier, on one connection.
type Sent = HashMap<u16, Event>;

type Event = (String, u32, u64);

fn events(sent: &Mutex<Sent>) -> MutexGuard<'_, Sent> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

fn event(packet: &Packet) -> Option<Event> {
    let payload = if packet.is_publish() { packet.payload()? } else { return None };
    let Envelope { device, boot, sequence, .. } = Envelope::decode(payload).ok()??;
    Some((device.to_owned(), boot, sequence))
}

impl Passage for Seen {
    fn pass(&self, near: &TcpStream, far: &TcpStream) -> io::Result<()> {
        let sent = Mutex::default();
        Err(thread::scope(|scope| {
            scope.spawn(|| {
                // However one direction ends, the other ends with it.
                let _ = self.to_broker(near, far, &sent);
                end(near, far)
            });
            let _ = self.to_agent(near, far, &sent);
            end(near, far)
        }))
    }
}
