//! The way between devices and gateway. Faults strike a PUBLISH of QoS 1, or its PUBACK.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::weather::Weather;
use crate::proxy::mqtt::Packet;
use crate::proxy::{Passage, end};

/// What goes wrong between devices and gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ToGateway {
    /// The PUBLISH comes late, and all that the device sends after it.
    Delay,
    /// The PUBLISH comes twice. The device gets the later PUBACK.
    Duplicate,
    /// The device's connection ends, and its PUBLISH comes to the gateway only after it came again on a later one.
    Overtaken,
    /// Nothing comes any more, in neither direction, and nothing ends, until the device comes on a later connection.
    HalfOpen,
    /// For a while nobody reads what the gateway sends; what the device sends passes.
    SlowReader,
    /// The connection ends in the middle of the next PUBACK: an event is committed, and the device does not know.
    CutAnswer,
}

/// How late a PUBLISH comes: some commits would have fit in.
const DELAY: Duration = Duration::from_millis(150);
/// How long nobody reads: a device's window is full by then.
const NOT_READ: Duration = Duration::from_millis(500);

impl ToGateway {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Delay, Self::Duplicate, Self::Overtaken, Self::HalfOpen, Self::SlowReader, Self::CutAnswer];
}

/// The way to the gateway, in this weather.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub(super) weather: Weather<ToGateway>,
}

/// One connection, as both its directions see it.
struct Connection<'a> {
    way: &'a Way,
    near: &'a TcpStream,
    far: &'a TcpStream,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    at_puback: AtPuback,
    // Publishes whose first PUBACK is to be left out.
    doubled: BTreeSet<u16>,
    forgotten: bool,
}

// What is to happen to the next PUBACK.
#[derive(Default)]
enum AtPuback {
    #[default]
    Passes,
    Waits,
    BreaksOff,
}

/// What becomes of a connection after a fault.
enum After {
    GoesOn,
    // The fault is not done before the next PUBACK.
    AtPuback,
    Ends,
    IsForgotten,
}

impl Passage for Way {
    fn pass(&self, near: &TcpStream, far: &TcpStream) -> io::Result<()> {
        let connection = Connection { way: self, near, far, state: Mutex::default() };
        thread::scope(|scope| {
            scope.spawn(|| connection.pass(Connection::to_gateway));
            connection.pass(Connection::to_device);
        });
        let State { at_puback, forgotten, .. } = &*connection.state();
        if matches!(at_puback, AtPuback::Waits) {
            // No PUBACK came any more.
            self.weather.failed(ToGateway::SlowReader, &[]);
        }
        if *forgotten { Ok(()) } else { Err(end(near, far)) }
    }
}

impl Connection<'_> {
    fn pass(&self, direction: fn(&Self) -> io::Result<()>) {
        // However one direction ends, the other ends with it, unless the connection is forgotten.
        if direction(self).is_err() && !self.state().forgotten {
            end(self.near, self.far);
        }
    }

    fn to_gateway(&self) -> io::Result<()> {
        let (weather, mut packets) = (&self.way.weather, BufReader::new(self.near));
        loop {
            let packet = Packet::read(&mut packets)?;
            let Some(message) = packet.is_publish().then(|| packet.message()).flatten() else {
                packet.pass(self.far)?;
                continue;
            };
            // One at a time: a fault that ends the connection must not take another with it.
            let free = matches!(self.state().at_puback, AtPuback::Passes);
            match if free { weather.strikes(&message) } else { None } {
                None => {
                    packet.pass(self.far)?;
                    weather.went_through(&message);
                }
                Some(fault) => {
                    let after = self.strike(fault, &packet, &message);
                    match after.inspect_err(|_| weather.failed(fault, &message))? {
                        After::GoesOn => weather.done(fault),
                        After::AtPuback => {}
                        After::Ends => {
                            weather.done(fault);
                            return Err(end(self.near, self.far));
                        }
                        After::IsForgotten => {
                            weather.done(fault);
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    fn strike(&self, fault: ToGateway, packet: &Packet, message: &[u8]) -> io::Result<After> {
        let weather = &self.way.weather;
        match fault {
            ToGateway::Delay => {
                thread::sleep(DELAY);
                packet.pass(self.far)?;
                Ok(After::GoesOn)
            }
            ToGateway::Duplicate => {
                self.state().doubled.extend(packet.identifier());
                packet.pass(self.far)?;
                packet.pass(self.far)?;
                Ok(After::GoesOn)
            }
            ToGateway::Overtaken => {
                weather.hold(message);
                // It may be gone already, and then comes again all the same.
                let _ = self.near.shutdown(Shutdown::Both);
                weather.wait_until_overtaken(message);
                // The gateway may have ended this connection when the device came on another one.
                let _ = packet.pass(self.far);
                Ok(After::Ends)
            }
            ToGateway::HalfOpen => {
                weather.hold(message);
                self.state().forgotten = true;
                weather.wait_until_overtaken(message);
                Ok(After::IsForgotten)
            }
            ToGateway::SlowReader => {
                self.state().at_puback = AtPuback::Waits;
                // Whether it has struck is known when both directions have ended, and said there.
                if packet.pass(self.far).is_err() {
                    end(self.near, self.far);
                }
                Ok(After::AtPuback)
            }
            ToGateway::CutAnswer => {
                weather.hold(message);
                self.state().at_puback = AtPuback::BreaksOff;
                packet.pass(self.far)?;
                weather.wait_until_overtaken(message);
                let cut = matches!(self.state().at_puback, AtPuback::Passes);
                if cut { Ok(After::Ends) } else { Err(end(self.near, self.far)) }
            }
        }
    }

    fn to_device(&self) -> io::Result<()> {
        let (weather, mut packets) = (&self.way.weather, BufReader::new(self.far));
        loop {
            let packet = Packet::read(&mut packets)?;
            if self.state().forgotten {
                return Ok(());
            }
            if !packet.is_puback() {
                packet.pass(self.near)?;
                continue;
            }
            let at_puback = std::mem::take(&mut self.state().at_puback);
            match at_puback {
                AtPuback::Passes => {}
                AtPuback::Waits => {
                    thread::sleep(NOT_READ);
                    weather.done(ToGateway::SlowReader);
                }
                AtPuback::BreaksOff => {
                    let mut near = self.near;
                    near.write_all(&packet.bytes[..packet.bytes.len() / 2])?;
                    return Err(end(self.near, self.far));
                }
            }
            let left_out = packet.identifier().is_some_and(|identifier| self.state().doubled.remove(&identifier));
            if !left_out {
                packet.pass(self.near)?;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::*;
    use crate::chaos::Strike;
    use crate::proxy::Proxy;

    const DEADLINE: Duration = Duration::from_secs(60);
    const PUBLISH: [u8; 8] = [0x32, 6, 0, 1, b't', 0, 9, b'p'];
    const PUBACK: [u8; 4] = [0x40, 2, 0, 9];

    // A gateway that this fault keeps devices from, once, with a connection.
    fn struck_by(fault: ToGateway) -> (TcpListener, Arc<Way>, Proxy<Way>, [TcpStream; 2]) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Arc::new(Way::default());
        way.weather.forecast(&[Strike { passing: 0, fault }]);
        let proxy = Proxy::new(server.local_addr().unwrap(), Arc::clone(&way)).unwrap();
        let ends = connect(&proxy, &server);
        (server, way, proxy, ends)
    }

    fn connect(proxy: &Proxy<Way>, server: &TcpListener) -> [TcpStream; 2] {
        let near = TcpStream::connect(proxy.address()).unwrap();
        let (far, _) = server.accept().unwrap();
        [near, far].map(|end| {
            end.set_read_timeout(Some(DEADLINE)).unwrap();
            end
        })
    }

    fn read<const N: usize>(mut end: &TcpStream) -> [u8; N] {
        let mut bytes = [0; N];
        end.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn silent(mut end: &TcpStream) -> bool {
        end.set_nonblocking(true).unwrap();
        let error = end.read(&mut [0]).unwrap_err();
        end.set_nonblocking(false).unwrap();
        error.kind() == ErrorKind::WouldBlock
    }

    #[test]
    fn a_publish_that_is_doubled_is_acknowledged_once() {
        let (_server, way, _proxy, [mut near, mut far]) = struck_by(ToGateway::Duplicate);
        near.write_all(&PUBLISH).unwrap();
        assert_eq!((read(&far), read(&far)), (PUBLISH, PUBLISH));
        far.write_all(&[PUBACK, PUBACK, [0x40, 2, 0, 8]].concat()).unwrap();
        assert_eq!((read(&near), read(&near)), (PUBACK, [0x40, 2, 0, 8]));
        crate::wait_until("the fault", DEADLINE, || way.weather.is_over()).unwrap();
    }

    #[test]
    fn a_publish_is_overtaken_by_its_retry() {
        let (server, way, proxy, [mut near, far]) = struck_by(ToGateway::Overtaken);
        near.write_all(&PUBLISH).unwrap();
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
        let [mut near, retried] = connect(&proxy, &server);
        // Another message is no retry.
        let other = [0x32, 6, 0, 1, b't', 0, 9, b'o'];
        near.write_all(&other).unwrap();
        assert_eq!(read(&retried), other);
        assert!(silent(&far));
        near.write_all(&PUBLISH).unwrap();
        assert_eq!((read(&retried), read(&far)), (PUBLISH, PUBLISH));
        crate::wait_until("the fault", DEADLINE, || way.weather.is_over()).unwrap();
    }

    #[test]
    fn a_half_open_connection_does_not_end() {
        let (server, way, proxy, [mut near, far]) = struck_by(ToGateway::HalfOpen);
        near.write_all(&PUBLISH).unwrap();
        crate::wait_until("the strike", DEADLINE, || way.weather.has_begun()).unwrap();
        let [mut again, retried] = connect(&proxy, &server);
        again.write_all(&PUBLISH).unwrap();
        assert_eq!(read(&retried), PUBLISH);
        crate::wait_until("the fault", DEADLINE, || way.weather.is_over()).unwrap();
        assert!(silent(&near) && silent(&far));
    }

    #[test]
    fn an_acknowledgement_breaks_off() {
        let (server, way, proxy, [mut near, mut far]) = struck_by(ToGateway::CutAnswer);
        near.write_all(&PUBLISH).unwrap();
        assert_eq!(read(&far), PUBLISH);
        far.write_all(&PUBACK).unwrap();
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, PUBACK[..2]);
        let [mut again, retried] = connect(&proxy, &server);
        again.write_all(&PUBLISH).unwrap();
        assert_eq!(read(&retried), PUBLISH);
        crate::wait_until("the fault", DEADLINE, || way.weather.is_over()).unwrap();
    }
}
