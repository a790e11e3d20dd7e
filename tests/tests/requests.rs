//! HTTP requests of functions, with the real agent, against a server of the test's own.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use function_abi::Attributes;
use function_package::Package;
use system_tests::{Inlet, Port, Record, System, World, http, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the server was asked.
#[derive(Clone, Debug)]
struct Asked {
    /// Method, path and version.
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Answers what the test says: for each path the answers in their order, and the last one again and again. An answer that is
/// none (an empty text) never comes.
struct Server {
    address: SocketAddr,
    asked: Arc<(Mutex<Vec<Asked>>, Condvar)>,
}

impl Server {
    fn start(answers: &[(&'static str, &'static [&'static str])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new((Mutex::new(Vec::<Asked>::new()), Condvar::new()));
        let answers: BTreeMap<_, _> = answers.iter().copied().collect();
        let heard = asked.clone();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let Some(request) = read(&mut stream) else { continue };
                let path = request.line.split(' ').nth(1).unwrap_or_default().to_owned();
                let mut list = heard.0.lock().unwrap();
                let before = list.iter().filter(|asked| asked.line == request.line).count();
                list.push(request);
                drop(list);
                heard.1.notify_all();
                let known = answers.get(path.as_str()).copied().unwrap_or(&["404 Not Found\r\n\r\n"]);
                match known[before.min(known.len() - 1)] {
                    "" => held.push(stream),
                    answer => {
                        let _ = write!(stream, "HTTP/1.1 {}", answer.replacen("\r\n", "\r\nconnection: close\r\n", 1));
                    }
                }
            }
        });
        Self { address, asked }
    }

    /// What was asked for with this path, as soon as it is so much.
    fn wait_for(&self, path: &str, count: usize) -> Vec<Asked> {
        let of = |all: &[Asked]| -> Vec<Asked> {
            all.iter().filter(|asked| asked.line.split(' ').nth(1) == Some(path)).cloned().collect()
        };
        let guard = self.asked.0.lock().unwrap();
        let waited = self.asked.1.wait_timeout_while(guard, DEADLINE, |all| of(all).len() < count).unwrap();
        assert!(!waited.1.timed_out(), "{path} was asked for {} times of {count}", of(&waited.0).len());
        of(&waited.0)
    }
}

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let mut lines = head.split("\r\n");
            let line = lines.next()?.to_owned();
            let fields = lines.filter_map(|line| line.split_once(": "));
            let headers: BTreeMap<String, String> =
                fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
                return Some(Asked { line, headers, body });
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(more) => bytes.extend_from_slice(&chunk[..more]),
        }
    }
}

/// Lists a request on `POST /ask/…`, whose body is `URL\n` and what is to be sent; of an answer it emits the attributes, a line
/// each, and then the body. Asked with something else than a URL, it traps.
fn asking(name: &str, allow: &str, head: &[(&str, &str)]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (name, value) in head {
        Attributes::write(name, value, |part| encoded.extend_from_slice(part)).unwrap();
    }
    let length = encoded.len();
    let encoded: String = encoded.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let module = format!(
        r#"(module
            (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
            (import "edge_v1" "request" (func $request (param i32 i32 i32 i32 i32 i32)))
            (memory (export "memory") 8)
            (data (i32.const 0) "done")
            (data (i32.const 16) "{encoded}")
            (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "edge_handle") (param $e i32) (param $len i32) (result i32)
                (local $at i32) (local $end i32) (local $to i32)
                (local.set $at (i32.add (local.get $e) (i32.load offset=48 (local.get $e))))
                (local.set $end (i32.add (local.get $at) (i32.load offset=52 (local.get $e))))
                (if (i32.eq (i32.load offset=4 (local.get $e)) (i32.const 5))
                    ;; Attributes come before the payload is looked at: both, one after the other, are the record.
                    (then
                        (memory.copy (i32.const 300000)
                            (i32.add (local.get $e) (i32.load offset=56 (local.get $e)))
                            (i32.load offset=60 (local.get $e)))
                        (local.set $to (i32.add (i32.const 300000) (i32.load offset=60 (local.get $e))))
                        (memory.copy (local.get $to) (local.get $at) (i32.load offset=52 (local.get $e)))
                        (call $emit (i32.const 0) (i32.const 4) (i32.const 300000)
                            (i32.add (i32.load offset=60 (local.get $e)) (i32.load offset=52 (local.get $e)))
                            (i32.const 0))
                        (return (i32.const 0))))
                (local.set $to (local.get $at))
                (block $found
                    (loop $next
                        (br_if $found (i32.ge_u (local.get $to) (local.get $end)))
                        (br_if $found (i32.eq (i32.load8_u (local.get $to)) (i32.const 10)))
                        (local.set $to (i32.add (local.get $to) (i32.const 1)))
                        (br $next)))
                (call $request (local.get $at) (i32.sub (local.get $to) (local.get $at))
                    (i32.const 16) (i32.const {length})
                    (i32.add (local.get $to) (i32.const 1))
                    (i32.sub (local.get $end) (i32.add (local.get $to) (i32.const 1))))
                (i32.const 0)))"#
    );
    let manifest = format!(
        "manifest = 1\nname = \"{name}\"\nversion = \"1.0.0\"\n[[trigger]]\nhttp = \"POST /{name}\"\n\
         [limits]\nmemory_kib = 1024\n[allow]\nstreams = [\"done\"]\n{allow}\n"
    );
    Package::pack(&wat::parse_str(module).unwrap(), &manifest).unwrap().bytes().to_vec()
}

struct House {
    system: System,
    http: SocketAddr,
    _port: Port,
}

/// A gateway with these functions, which may reach this machine.
fn house(functions: &[(&str, Vec<u8>)], requests: &str) -> House {
    let port = Port::free().unwrap();
    let http = port.address();
    let config = format!("\n[http]\nlisten = \"{http}\"\n[requests]\n{requests}\n");
    let system = System::start_with(World::new().unwrap(), Inlet::Own, &[], &config).unwrap();
    system.deploy(functions).unwrap();
    House { system, http, _port: port }
}

const LOOPBACK: &str = "private_addresses = [\"127.0.0.0/8\"]";

/// What became of a request, as the function saw it.
#[derive(Debug)]
struct Answer {
    attributes: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn of(record: &Record) -> Self {
        // What is no JSON comes as hexadecimal digits.
        let digits = record.body.as_str().unwrap_or_else(|| panic!("{record:?}"));
        let bytes: Vec<u8> =
            (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
        let mut attributes = BTreeMap::new();
        let mut rest = Attributes(&bytes);
        for (name, value) in rest.by_ref() {
            attributes.insert(name.to_owned(), value.to_owned());
        }
        Self { attributes, body: String::from_utf8_lossy(rest.0).into_owned() }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

impl House {
    fn ask(&self, function: &str, url: &str, body: &str) {
        let (status, said) = self.try_ask(function, url, body);
        assert_eq!(status, 204, "{said}");
    }

    fn try_ask(&self, function: &str, url: &str, body: &str) -> (u16, String) {
        let (status, body) =
            http::post(self.http, &format!("/{function}"), &[], format!("{url}\n{body}").as_bytes()).unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    fn wait_for_answers(&self, count: usize) -> Vec<Answer> {
        let records = wait_until("records in the cloud", DEADLINE, || {
            let done = self.system.cloud.records("done").unwrap();
            if done.len() >= count { Ok(done) } else { Err(format!("{} of {count}", done.len())) }
        });
        records.unwrap().iter().map(Answer::of).collect()
    }

    /// When nothing waits any more: how many answers there are then.
    fn wait_until_idle(&self) -> Vec<Answer> {
        let status = self.system.gateway.wait_until_drained(DEADLINE).unwrap();
        assert_eq!((status.requests.waiting, status.messages), (0, 0), "{status:?}");
        self.system.cloud.records("done").unwrap().iter().map(Answer::of).collect()
    }
}

#[test]
fn an_answer_comes_as_an_event_once_and_a_redirect_is_one() {
    let server = Server::start(&[
        ("/ok?key=1", &["201 Created\r\nx-made: yes\r\n\r\nmade"]),
        ("/moved", &["302 Found\r\nlocation: /ok?key=1\r\n\r\n"]),
    ]);
    let address = server.address;
    let allow = format!("hosts = [\"{address}\"]\nanswers = [\"second\"]");
    let first =
        asking("first", &allow, &[("method", "PUT"), ("header.X-Key", "k"), ("tag", "the-tag"), ("to", "second")]);
    let house = house(&[("first", first), ("second", asking("second", "", &[]))], LOOPBACK);
    house.ask("first", &format!("http://{address}/ok?key=1"), "body");
    let [answer] = &house.wait_for_answers(1)[..] else { panic!("one answer") };
    assert_eq!(
        [answer.get("status"), answer.get("tag"), answer.get("header.x-made")],
        [Some("201"), Some("the-tag"), Some("yes")]
    );
    assert_eq!((answer.get("attempts"), answer.get("error"), answer.body.as_str()), (Some("1"), None, "made"));
    let [asked] = &server.wait_for("/ok?key=1", 1)[..] else { panic!("asked once") };
    assert_eq!((asked.line.as_str(), asked.body.as_str()), ("PUT /ok?key=1 HTTP/1.1", "body"));
    assert_eq!(asked.headers["x-key"], "k");
    let key = format!("\"{}\"", answer.get("request").unwrap());
    assert_eq!(asked.headers["idempotency-key"], key);

    house.ask("first", &format!("http://{address}/moved"), "");
    let answers = house.wait_for_answers(2);
    assert!(answers.iter().any(|answer| answer.get("status") == Some("302")), "{answers:?}");
    assert_eq!(house.wait_until_idle().len(), 2);
    assert_eq!(server.wait_for("/ok?key=1", 1).len(), 1, "the redirect was followed");
    let requests = house.system.gateway.status().unwrap().requests;
    assert_eq!((requests.sent, requests.answered, requests.failed), (2, 2, 0));
}

#[test]
fn what_fails_is_tried_again_with_the_same_key_and_then_given_up() {
    let server = Server::start(&[
        ("/twice", &["503 Unavailable\r\n\r\n", "429 Slow\r\nretry-after: 1\r\n\r\n", "200 OK\r\n\r\nat last"]),
        ("/never", &["500 Error\r\n\r\nwhy"]),
        ("/hangs", &[""]),
    ]);
    let address = server.address;
    let allow = format!("hosts = [\"{address}\"]");
    let patient = asking("patient", &allow, &[("tries", "3")]);
    let hasty = asking("hasty", &allow, &[("tries", "2"), ("timeout_ms", "300")]);
    let house = house(&[("patient", patient), ("hasty", hasty)], LOOPBACK);
    for path in ["/twice", "/never"] {
        house.ask("patient", &format!("http://{address}{path}"), "");
    }
    house.ask("hasty", &format!("http://{address}/hangs"), "");
    let answers = house.wait_for_answers(3);
    let find = |path: &str| {
        let asked = server.wait_for(path, 1);
        let key = asked[0].headers["idempotency-key"].clone();
        assert!(asked.iter().all(|asked| asked.headers["idempotency-key"] == key), "{asked:?}");
        let answer = answers.iter().find(|answer| answer.get("request") == Some(key.trim_matches('"'))).unwrap();
        (asked.len(), answer)
    };
    let (times, answer) = find("/twice");
    assert_eq!(
        (times, answer.get("status"), answer.get("error"), answer.body.as_str()),
        (3, Some("200"), None, "at last")
    );
    assert_eq!(answer.get("attempts"), Some("3"));
    let (times, answer) = find("/never");
    assert_eq!((times, answer.get("status"), answer.body.as_str()), (3, Some("500"), "why"));
    assert_eq!(answer.get("error"), Some("gave up after 3 attempts: the server answered 500"));
    let (times, answer) = find("/hangs");
    assert_eq!((times, answer.get("status")), (2, None));
    assert_eq!(answer.get("error"), Some("gave up after 2 attempts: no whole answer came within 300 ms"));
    assert_eq!(house.wait_until_idle().len(), 3);
    let requests = house.system.gateway.status().unwrap().requests;
    assert_eq!((requests.sent, requests.answered, requests.failed), (8, 1, 2));
}

#[test]
fn what_may_not_be_reached_is_told_and_what_is_not_allowed_traps() {
    let server = Server::start(&[("/long", &["200 OK\r\n\r\n"])]);
    let port = server.address.port();
    let allow = format!("hosts = [\"127.0.0.1:{port}\", \"localhost:{port}\", \"[::ffff:127.0.0.1]:{port}\"]");
    let house = house(&[("asking", asking("asking", &allow, &[]))], "private_addresses = [\"127.0.0.2\"]");
    // As an address, in another form, and as a name that leads there.
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        house.ask("asking", &format!("http://{host}:{port}/x"), "");
    }
    for answer in house.wait_for_answers(3) {
        let error = answer.get("error").unwrap();
        assert!(error.contains("which is no public address"), "{error}");
        assert_eq!((answer.get("status"), answer.get("attempts")), (None, Some("1")));
    }
    let (status, said) = house.try_ask("asking", &format!("http://127.0.0.2:{port}/x"), "");
    assert_eq!(status, 500, "{said}");
    wait_until("the dead letter", DEADLINE, || {
        let letters = house.system.gateway.status().map_err(|error| error.to_string())?.dead_letters;
        if letters == 1 { Ok(()) } else { Err(format!("{letters} dead letters")) }
    })
    .unwrap();
    assert!(server.asked.0.lock().unwrap().is_empty(), "the server was reached");
}

#[test]
fn an_answer_takes_effect_once_through_kill_9() {
    const REQUESTS: usize = 40;
    let server = Server::start(&[("/slow", &["", "200 OK\r\n\r\nslow"]), ("/fast", &["200 OK\r\n\r\nfast"])]);
    let address = server.address;
    let function = asking("asking", &format!("hosts = [\"{address}\"]"), &[("timeout_ms", "120000"), ("tries", "20")]);
    let mut house = house(&[("asking", function)], LOOPBACK);
    // It dies while it waits for the answer.
    house.ask("asking", &format!("http://{address}/slow"), "");
    server.wait_for("/slow", 1);
    house.system.gateway.kill9();
    house.system.gateway.start().unwrap();
    let asked = server.wait_for("/slow", 2);
    assert_eq!(asked[0].headers["idempotency-key"], asked[1].headers["idempotency-key"]);
    house.wait_for_answers(1);
    // And among many answers.
    for number in 1..=REQUESTS {
        wait_until("the gateway", DEADLINE, || {
            let target = format!("http://{address}/fast\n{number}");
            let (status, said) =
                http::post(house.http, "/asking", &[], target.as_bytes()).map_err(|error| error.to_string())?;
            if status == 204 { Ok(()) } else { Err(format!("{status} {}", String::from_utf8_lossy(&said))) }
        })
        .unwrap();
        if number % 10 == 0 {
            house.system.gateway.kill9();
            house.system.gateway.start().unwrap();
        }
    }
    house.wait_for_answers(REQUESTS + 1);
    let answers = house.wait_until_idle();
    let mut numbers: Vec<&str> = answers.iter().map(|answer| answer.get("request").unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!((answers.len(), numbers.len()), (REQUESTS + 1, REQUESTS + 1));
}
