//! The edges between gateway and control plane.

use std::io::{self, BufReader};
use std::net::TcpStream;

use super::plan::Edge;
use super::trigger::Trigger;
use crate::proxy::end;
use crate::proxy::http::Message;

/// Passes requests and answers on, one after the other, until the connection ends.
pub(super) fn pass(near: &TcpStream, far: &TcpStream, trigger: &Trigger) -> io::Result<()> {
    let (mut requests, mut answers) = (BufReader::new(near), BufReader::new(far));
    loop {
        let request = Message::read(&mut requests)?;
        let reached = |edge| if request.has_records() && trigger.reached(edge) { Err(end(near, far)) } else { Ok(()) };
        reached(Edge::Deleted)?;
        request.pass(far)?;
        reached(Edge::Sent)?;

        let answer = Message::read(&mut answers)?;
        reached(Edge::Stored)?;
        answer.pass(near)?;
        reached(Edge::Answered)?;
    }
}
