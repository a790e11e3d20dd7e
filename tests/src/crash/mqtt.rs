//! The edges between devices and gateway.

use std::io::{self, BufReader};
use std::net::TcpStream;

use super::plan::Edge;
use super::trigger::Trigger;
use crate::proxy::end;
use crate::proxy::mqtt::Packet;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToGateway,
    ToDevice,
}

/// Passes packets on in one direction until the connection ends.
pub(super) fn pass(from: &TcpStream, to: &TcpStream, way: Way, trigger: &Trigger) -> io::Error {
    let mut packets = BufReader::new(from);
    let error = loop {
        if let Err(error) = pass_one(&mut packets, to, way, trigger) {
            break error;
        }
    };
    // However one direction ends, the other ends with it.
    end(from, to);
    error
}

fn pass_one(packets: &mut BufReader<&TcpStream>, to: &TcpStream, way: Way, trigger: &Trigger) -> io::Result<()> {
    let from = *packets.get_ref();
    let packet = Packet::read(packets)?;
    let edges = match way {
        Way::ToGateway if packet.is_publish() => (None, Some(Edge::Received)),
        Way::ToDevice if packet.is_puback() => (Some(Edge::Committed), Some(Edge::Acknowledged)),
        _ => (None, None),
    };
    if edges.0.is_some_and(|edge| trigger.reached(edge)) {
        return Err(end(from, to));
    }
    packet.pass(to)?;
    if edges.1.is_some_and(|edge| trigger.reached(edge)) {
        return Err(end(from, to));
    }
    Ok(())
}
