//! The way between gateway and control plane. Faults strike requests with records; other requests pass.

use std::io::{self, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::weather::Weather;
use crate::proxy::http::Message;
use crate::proxy::{Passage, end};

/// What goes wrong between gateway and control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ToCloud {
    /// The request comes late, and so does the answer.
    Delay,
    /// The request comes twice, at the same time, on two connections. The gateway gets the later answer.
    Duplicate,
    /// The gateway's connection ends, and its request comes to the control plane only after a later one was answered.
    Overtaken,
    /// The control plane has the request. Then nothing comes any more, and nothing ends, until the gateway comes on a later
    /// connection.
    HalfOpen,
    /// The request is read in small pieces, and so is the answer.
    SlowReader,
    /// The control plane has the request. The connection ends in the middle of the answer.
    CutAnswer,
    /// Something in between answers.
    Answer(Status),
}

/// What something in between answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// 429, which the control plane never saw.
    TooManyRequests,
    /// 429, with a time for which the gateway must leave the control plane alone.
    TooManyRequestsRetryAfter,
    /// 500, though the control plane has the request and answered that it took it.
    InternalServerError,
    /// 503, which the control plane never saw.
    Unavailable,
    /// 503, with a time for which the gateway must leave the control plane alone.
    UnavailableRetryAfter,
}

/// How late a message comes: some deliveries would have fit in.
const DELAY: Duration = Duration::from_millis(150);
/// A message is read in so many pieces, with a pause after each.
const PIECES: usize = 16;
const PIECES_EVERY: Duration = Duration::from_millis(15);
/// So many bytes of an answer are missing: head and length are there, the body is not whole.
const CUT_OFF: usize = 2;
/// Longer than the longest pause of the agents here by themselves, which is a second.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Two requests of a gateway may be on their way, so the other one may come when the first was told to wait: for so long.
const ON_THE_WAY: Duration = Duration::from_millis(500);

impl ToCloud {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::Delay,
        Self::Duplicate,
        Self::Overtaken,
        Self::HalfOpen,
        Self::SlowReader,
        Self::CutAnswer,
        Self::Answer(Status::TooManyRequests),
        Self::Answer(Status::TooManyRequestsRetryAfter),
        Self::Answer(Status::InternalServerError),
        Self::Answer(Status::Unavailable),
        Self::Answer(Status::UnavailableRetryAfter),
    ];
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::TooManyRequests | Self::TooManyRequestsRetryAfter => "429 Too Many Requests",
            Self::InternalServerError => "500 Internal Server Error",
            Self::Unavailable | Self::UnavailableRetryAfter => "503 Service Unavailable",
        }
    }

    fn retry_after(self) -> Option<Duration> {
        matches!(self, Self::TooManyRequestsRetryAfter | Self::UnavailableRetryAfter).then_some(RETRY_AFTER)
    }

    fn message(self) -> Message {
        let line = self.line();
        let header = self.retry_after().map(|wait| format!("retry-after: {}\r\n", wait.as_secs())).unwrap_or_default();
        Message(format!("HTTP/1.1 {line}\r\n{header}content-length: {}\r\n\r\n{line}", line.len()).into_bytes())
    }
}

/// All requests with records are one to [`Weather`]: of the two that the agent may have on their way none is told from the
/// other, and each that follows one without an answer is taken for its retry.
const RECORDS: &[u8] = b"records";

/// The way to the control plane, in this weather.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub(super) weather: Weather<ToCloud>,
    quiet: Mutex<Option<Quiet>>,
}

/// The gateway was told to leave the control plane alone.
#[derive(Debug)]
struct Quiet {
    told: Instant,
    // On this connection.
    on: SocketAddr,
}

impl Passage for Way {
    fn pass(&self, near: &TcpStream, far: &TcpStream) -> io::Result<()> {
        let (mut requests, mut answers) = (BufReader::new(near), BufReader::new(far));
        let from = near.peer_addr()?;
        loop {
            let request = Message::read(&mut requests).inspect_err(|_| self.gone(from))?;
            if !request.has_records() {
                request.pass(far)?;
                Message::read(&mut answers)?.pass(near)?;
                continue;
            }
            self.check_patience(from);
            match self.weather.strikes(RECORDS) {
                None => {
                    request.pass(far)?;
                    Message::read(&mut answers)?.pass(near)?;
                    self.weather.went_through(RECORDS);
                }
                Some(fault) => {
                    let after = self.strike(fault, &request, &mut answers, near);
                    let after = after.inspect_err(|_| self.weather.failed(fault, RECORDS))?;
                    self.weather.done(fault);
                    match after {
                        After::GoesOn => {}
                        After::Ends => return Err(end(near, far)),
                        After::IsForgotten => return Ok(()),
                    }
                }
            }
        }
    }
}

/// What becomes of a connection after a fault.
enum After {
    GoesOn,
    Ends,
    IsForgotten,
}

impl Way {
    fn strike(
        &self,
        fault: ToCloud,
        request: &Message,
        answers: &mut BufReader<&TcpStream>,
        near: &TcpStream,
    ) -> io::Result<After> {
        let far = *answers.get_ref();
        match fault {
            ToCloud::Delay => {
                thread::sleep(DELAY);
                request.pass(far)?;
                let answer = Message::read(answers)?;
                thread::sleep(DELAY);
                answer.pass(near)?;
            }
            ToCloud::SlowReader => {
                in_pieces(request, far)?;
                in_pieces(&Message::read(answers)?, near)?;
            }
            ToCloud::Duplicate => {
                let other = TcpStream::connect(far.peer_addr()?)?;
                request.pass(&other)?;
                request.pass(far)?;
                Message::read(answers)?;
                Message::read(&mut BufReader::new(&other))?.pass(near)?;
            }
            ToCloud::Overtaken => {
                self.weather.hold(RECORDS);
                near.shutdown(Shutdown::Both)?;
                self.weather.wait_until_overtaken(RECORDS);
                request.pass(far)?;
                Message::read(answers)?;
                return Ok(After::Ends);
            }
            ToCloud::HalfOpen => {
                self.weather.hold(RECORDS);
                request.pass(far)?;
                Message::read(answers)?;
                self.weather.wait_until_overtaken(RECORDS);
                return Ok(After::IsForgotten);
            }
            ToCloud::CutAnswer => {
                request.pass(far)?;
                let Message(answer) = Message::read(answers)?;
                let mut near = near;
                near.write_all(&answer[..answer.len() - CUT_OFF])?;
                return Ok(After::Ends);
            }
            ToCloud::Answer(status) => {
                if status == Status::InternalServerError {
                    request.pass(far)?;
                    Message::read(answers)?;
                }
                if status.retry_after().is_some() {
                    *self.quiet() = Some(Quiet { told: Instant::now(), on: near.peer_addr()? });
                }
                status.message().pass(near)?;
            }
        }
        Ok(After::GoesOn)
    }

    // A gateway that comes too early is a fault of the gateway.
    fn check_patience(&self, from: SocketAddr) {
        let mut quiet = self.quiet();
        let Some(Quiet { told, on }) = &*quiet else { return };
        let waited = told.elapsed();
        // Whoever sends on the connection that told it has read that.
        if *on != from && waited < ON_THE_WAY {
            return;
        }
        let early = RETRY_AFTER.saturating_sub(waited);
        if !early.is_zero() {
            self.weather.complain(format!("the gateway came back {early:?} before Retry-After allowed it"));
        }
        *quiet = None;
    }

    // A gateway whose other request failed first gives this one up, and with it an answer that told it to wait.
    fn gone(&self, from: SocketAddr) {
        self.quiet().take_if(|quiet| quiet.on == from);
    }

    fn quiet(&self) -> MutexGuard<'_, Option<Quiet>> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_pieces(message: &Message, mut to: &TcpStream) -> io::Result<()> {
    for piece in message.0.chunks(message.0.len().div_ceil(PIECES)) {
        to.write_all(piece)?;
        thread::sleep(PIECES_EVERY);
    }
    Ok(())
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
    const REQUEST: &[u8] = b"POST /gateway/v1/records HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";

    // A control plane that this fault keeps the gateway from, once.
    fn struck_by(fault: ToCloud) -> (TcpListener, Arc<Way>, Proxy<Way>) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Arc::new(Way::default());
        way.weather.forecast(&[Strike { passing: 0, fault }]);
        let proxy = Proxy::new(server.local_addr().unwrap(), Arc::clone(&way)).unwrap();
        (server, way, proxy)
    }

    fn ask(proxy: &Proxy<Way>) -> TcpStream {
        let mut near = TcpStream::connect(proxy.address()).unwrap();
        near.set_read_timeout(Some(DEADLINE)).unwrap();
        near.write_all(REQUEST).unwrap();
        near
    }

    fn answer(server: &TcpListener) -> TcpStream {
        let (mut far, _) = server.accept().unwrap();
        let mut request = vec![0; REQUEST.len()];
        far.read_exact(&mut request).unwrap();
        assert_eq!(request, REQUEST);
        far.write_all(ANSWER).unwrap();
        far
    }

    fn read(mut end: &TcpStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        end.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_request_that_is_doubled_is_answered_once() {
        let (server, way, proxy) = struck_by(ToCloud::Duplicate);
        let near = ask(&proxy);
        let _far = [answer(&server), answer(&server)];
        assert_eq!(read(&near, ANSWER.len()), ANSWER);
        crate::wait_until("the fault", DEADLINE, || way.weather.is_over()).unwrap();
    }

    #[test]
    fn a_request_is_overtaken_by_the_next() {
        let (server, way, proxy) = struck_by(ToCloud::Overtaken);
        let original = ask(&proxy);
        let (mut held, _) = server.accept().unwrap();
        assert!(read_to_end(&original).is_empty());
        let retry = ask(&proxy);
        // Nothing comes on the first connection before the second is through.
        held.set_nonblocking(true).unwrap();
        assert_eq!(held.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        held.set_nonblocking(false).unwrap();
        let _far = answer(&server);
        assert_eq!(read(&retry, ANSWER.len()), ANSWER);
        assert_eq!(read(&held, REQUEST.len()), REQUEST);
        assert!(way.weather.is_over().is_err());
        held.write_all(ANSWER).unwrap();
        assert!(read_to_end(&held).is_empty());
        crate::wait_until("the fault", DEADLINE, || way.weather.is_over()).unwrap();
    }

    #[test]
    fn who_comes_back_too_early_is_named() {
        let (server, way, proxy) = struck_by(ToCloud::Answer(Status::UnavailableRetryAfter));
        let mut near = ask(&proxy);
        let refusal = Status::UnavailableRetryAfter.message().0;
        assert_eq!(read(&near, refusal.len()), refusal);
        near.write_all(REQUEST).unwrap();
        let _far = answer(&server);
        assert_eq!(read(&near, ANSWER.len()), ANSWER);
        assert_eq!(way.weather.complaints().len(), 1);
    }

    #[test]
    fn an_answer_breaks_off_and_a_half_open_connection_does_not_end() {
        let (server, _way, proxy) = struck_by(ToCloud::CutAnswer);
        let near = ask(&proxy);
        let _far = answer(&server);
        assert_eq!(read_to_end(&near), ANSWER[..ANSWER.len() - CUT_OFF]);

        let (server, way, proxy) = struck_by(ToCloud::HalfOpen);
        let near = ask(&proxy);
        let _far = answer(&server);
        let retry = ask(&proxy);
        let _other = answer(&server);
        assert_eq!(read(&retry, ANSWER.len()), ANSWER);
        crate::wait_until("the fault", DEADLINE, || way.weather.is_over()).unwrap();
        near.set_nonblocking(true).unwrap();
        assert_eq!((&near).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    fn read_to_end(mut end: &TcpStream) -> Vec<u8> {
        let mut rest = Vec::new();
        end.read_to_end(&mut rest).unwrap();
        rest
    }
}
