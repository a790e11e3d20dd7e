//! Proxies that find the edges of an event's way.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use anyhow::Result;

use super::trigger::Trigger;
use super::{http, mqtt};
use crate::World;
use crate::house::{self, Load};
use crate::proxy::Passage;

/// A house whose proxies pull a trigger.
pub(super) type House = house::House<Edges, Edges>;

/// Pulls a [`Trigger`] at the edges of what passes.
#[derive(Debug)]
pub(super) struct Edges {
    speaks: Protocol,
    trigger: Arc<Trigger>,
}

/// What passes through a proxy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    /// From devices to the gateway.
    Mqtt,
    /// From the gateway to the control plane.
    Http,
}

/// Between two kills some hundred events are on their way.
const LOAD: Load = Load { devices: 4, rate: 150.0 };

/// Starts a house under load, in this world, and the trigger that can be set in it.
pub(super) fn start(world: World) -> Result<(House, Arc<Trigger>)> {
    let trigger = Arc::new(Trigger::default());
    let edges = |speaks| Arc::new(Edges { speaks, trigger: Arc::clone(&trigger) });
    let house = House::start(world, LOAD, edges(Protocol::Http), edges(Protocol::Mqtt), "")?;
    Ok((house, trigger))
}

impl Passage for Edges {
    fn pass(&self, near: &TcpStream, far: &TcpStream) -> io::Result<()> {
        match self.speaks {
            Protocol::Http => http::pass(near, far, &self.trigger),
            Protocol::Mqtt => Err(thread::scope(|scope| {
                scope.spawn(|| mqtt::pass(near, far, mqtt::Way::ToGateway, &self.trigger));
                mqtt::pass(far, near, mqtt::Way::ToDevice, &self.trigger)
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::crash::{Edge, Step, Victim};
    use crate::proxy::Proxy;

    const DEADLINE: Duration = Duration::from_secs(60);
    const PUBLISH: [u8; 7] = [0x32, 5, 0, 1, b't', 0, 9];
    const PUBACK: [u8; 4] = [0x40, 2, 0, 9];

    // A proxy with a connection through it, of which the trigger waits for an edge.
    fn connected(speaks: Protocol, edge: Edge, nth: u32) -> (Proxy<Edges>, Arc<Trigger>, [TcpStream; 2]) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let trigger = Arc::new(Trigger::default());
        trigger.set(&Step { victim: Victim::Connection, edge, nth, pause: Duration::ZERO }, None);
        let edges = Arc::new(Edges { speaks, trigger: Arc::clone(&trigger) });
        let proxy = Proxy::new(server.local_addr().unwrap(), edges).unwrap();
        let near = TcpStream::connect(proxy.address()).unwrap();
        let (far, _) = server.accept().unwrap();
        for end in [&near, &far] {
            end.set_read_timeout(Some(DEADLINE)).unwrap();
        }
        (proxy, trigger, [near, far])
    }

    fn rest(mut end: &TcpStream) -> Vec<u8> {
        let mut rest = Vec::new();
        end.read_to_end(&mut rest).unwrap();
        rest
    }

    #[test]
    fn what_is_received_has_passed_when_the_connection_ends() {
        let (_proxy, trigger, [mut near, far]) = connected(Protocol::Mqtt, Edge::Received, 2);
        // Quality of service 0 is not counted.
        near.write_all(&[&PUBLISH[..], &[0x30, 3, 0, 1, b't'], &PUBLISH].concat()).unwrap();
        assert_eq!(rest(&far), [&PUBLISH[..], &[0x30, 3, 0, 1, b't'], &PUBLISH].concat());
        assert!(trigger.wait(DEADLINE));
        assert!(rest(&near).is_empty());
    }

    #[test]
    fn an_acknowledgement_is_swallowed_when_it_was_only_committed() {
        let (_proxy, trigger, [near, mut far]) = connected(Protocol::Mqtt, Edge::Committed, 2);
        far.write_all(&[PUBACK, PUBACK].concat()).unwrap();
        assert_eq!(rest(&near), PUBACK);
        assert!(trigger.wait(DEADLINE));
    }

    #[test]
    fn an_answer_is_swallowed_when_records_are_only_stored() {
        let (_proxy, trigger, [mut near, mut far]) = connected(Protocol::Http, Edge::Stored, 1);
        let mut exchange = |path: &str| {
            let request = format!("POST {path} HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody");
            near.write_all(request.as_bytes()).unwrap();
            let mut received = vec![0; request.len()];
            far.read_exact(&mut received).unwrap();
            assert_eq!(received, request.as_bytes());
            far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        };
        exchange("/gateway/v1/sync");
        exchange("/gateway/v1/records");
        assert_eq!(rest(&near), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        assert!(trigger.wait(DEADLINE));
    }
}
