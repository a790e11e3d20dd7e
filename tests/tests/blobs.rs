//! Blobs with the real agent: what is uploaded or dropped into a folder is on the disk and leads to one event, wherever the agent
//! is killed meanwhile.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use function_package::{Digest, Package};
use serde_json::Value;
use system_tests::{Inlet, Port, Record, System, World, http, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(90);

/// The content of the event's blob, by its digest: that is its first attribute.
const CONTENT: &str = "(memory.copy (i32.const 39)
        (i32.add (i32.add (local.get 0) (i32.load offset=56 (local.get 0))) (i32.const 14)) (i32.const 64))";
const ITS_NAME: &str = "(i32.const 32) (i32.const 71)";

/// A packed function. In its handler the event block is local 0, and local 2 is free; at 0 lies "done", at 16 "out/copy", at 32 "sha256:".
fn function(name: &str, manifest: &str, handler: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
            (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
            (import "edge_v1" "blob_size" (func $size (param i32 i32) (result i32)))
            (import "edge_v1" "blob_get" (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (import "edge_v1" "blob_put" (func $put (param i32 i32 i32 i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "done")
            (data (i32.const 16) "out/copy")
            (data (i32.const 32) "sha256:")
            (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "edge_handle") (param i32 i32) (result i32) (local i32) {handler} (i32.const 0)))"#
    );
    let manifest = format!("manifest = 1\nname = \"{name}\"\nversion = \"1.0.0\"\n{manifest}");
    Package::pack(&wat::parse_str(module).unwrap(), &manifest).unwrap().bytes().to_vec()
}

/// Emits the first seven bytes of each blob of `in`, which are a number here; traps on one that begins with "x".
fn reader() -> Vec<u8> {
    function(
        "reader",
        "[[trigger]]\nblob = \"in/*\"\n[allow]\nstreams = [\"done\"]\n",
        &format!(
            "{CONTENT} (local.set 2 (call $get {ITS_NAME} (i32.const 0) (i32.const 8192) (i32.const 7)))
             (if (i32.eq (i32.load8_u (i32.const 8192)) (i32.const 120)) (then unreachable))
             (call $emit (i32.const 0) (i32.const 4) (i32.const 8192) (local.get 2) (i32.const 0))"
        ),
    )
}

/// Stores the first 16 KiB of each blob of `raw` as `out/copy`.
fn copier() -> Vec<u8> {
    function(
        "copier",
        "[[trigger]]\nblob = \"raw/*\"\n[allow]\nblobs = [\"out/*\"]\n",
        &format!(
            "{CONTENT} (local.set 2 (call $get {ITS_NAME} (i32.const 0) (i32.const 8192) (i32.const 16384)))
             (call $put (i32.const 16) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const 8192) (local.get 2))"
        ),
    )
}

struct House {
    system: System,
    http: SocketAddr,
    _port: Port,
}

/// A gateway that takes blobs, with these functions.
fn house(functions: &[(&str, Vec<u8>)], config: &str) -> House {
    house_in(World::new().unwrap(), functions, config)
}

fn house_in(world: World, functions: &[(&str, Vec<u8>)], config: &str) -> House {
    let port = Port::free().unwrap();
    let http = port.address();
    let config = format!("\n[http]\nlisten = \"{http}\"\ntoken = \"a token of some length\"\n{config}");
    let system = System::start_with(world, Inlet::Own, &[], &config).unwrap();
    system.deploy(functions).unwrap();
    House { system, http, _port: port }
}

fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut headers = vec![("authorization", "Bearer a token of some length".to_owned())];
    headers.extend(fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
    http::request(address, method, path, &headers, body)
}

/// The digest that is answered, if the blob is taken.
fn put(address: SocketAddr, path: &str, body: &[u8]) -> Result<String, String> {
    let (status, answer) = ask(address, "PUT", path, &[], body).map_err(|error| format!("{error:#}"))?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    if status != 201 {
        return Err(format!("{status} {text}"));
    }
    let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    Ok(answer["digest"].as_str().unwrap_or_default().to_owned())
}

fn hex_digest(bytes: &[u8]) -> String {
    Digest::of(bytes).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number that JSON reads as such, and behind it so many bytes.
fn content(number: u64, more: usize) -> Vec<u8> {
    [format!("{}\n", 1_000_000 + number).into_bytes(), vec![b'.'; more]].concat()
}

impl House {
    fn put(&self, path: &str, body: &[u8]) -> Result<String, String> {
        put(self.http, path, body)
    }

    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        ask(self.http, "GET", path, &[], b"").unwrap()
    }

    fn refused(&self, path: &str, fields: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        let (status, body) = ask(self.http, "PUT", path, fields, body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    fn wait_for_records(&self, count: usize) -> Vec<Record> {
        wait_until("records in the cloud", DEADLINE, || {
            let done = self.system.cloud.records("done").unwrap();
            if done.len() >= count { Ok(done) } else { Err(format!("{} of {count}", done.len())) }
        })
        .unwrap()
    }

    /// How often each number was handled, when nothing waits any more.
    fn handled(&self, expected: usize) -> BTreeMap<u64, u32> {
        self.wait_for_records(expected);
        wait_until("all to be handled", DEADLINE, || {
            let status = self.system.gateway.status().map_err(|error| format!("{error:#}"))?;
            if status.messages == 0 { Ok(()) } else { Err(format!("{} messages wait", status.messages)) }
        })
        .unwrap();
        self.system.gateway.wait_until_drained(DEADLINE).unwrap();
        let mut handled = BTreeMap::new();
        for record in self.system.cloud.records("done").unwrap() {
            *handled.entry(record.body.as_u64().unwrap() - 1_000_000).or_default() += 1;
        }
        handled
    }

    fn blobs_dir(&self) -> PathBuf {
        self.system.gateway.data_dir().join("blobs")
    }
}

/// The names of all files below a folder.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

#[test]
fn an_upload_is_stored_given_back_and_leads_to_one_event() {
    let house = house(&[("reader", reader())], "");
    let body = content(7, 100_000);
    let digest = hex_digest(&body);
    let said = format!("sha-256=:{}:", STANDARD.encode(Digest::of(&body).as_bytes()));
    let fields = [("content-type", "text/x-number"), ("content-digest", said.as_str())];
    let (status, answer) = ask(house.http, "PUT", "/blobs/in/a%20b/%C3%BC.txt", &fields, &body).unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let expected =
        serde_json::json!({ "name": "in/a b/ü.txt", "digest": digest, "size": body.len(), "type": "text/x-number" });
    assert_eq!((status, answer), (201, expected));
    assert_eq!(house.get("/blobs/in/a%20b/%C3%BC.txt"), (200, body.clone()));
    assert_eq!(house.get("/blobs/in/none").0, 404);
    let (status, answer) = ask(house.http, "HEAD", "/blobs/in/a%20b/%C3%BC.txt", &[], b"").unwrap();
    assert_eq!((status, answer.len()), (200, 0));
    // Whoever got no answer sends it again.
    assert_eq!(house.put("/blobs/in/a%20b/%C3%BC.txt", &body), Ok(digest));
    let other = content(8, 0);
    house.put("/blobs/in/a%20b/%C3%BC.txt", &other).unwrap();
    house.put("/blobs/elsewhere/b", &content(9, 0)).unwrap();
    assert_eq!(house.handled(2), BTreeMap::from([(7, 1), (8, 1)]));
    // What nothing refers to any more goes.
    let status = wait_until("the first content to go", DEADLINE, || {
        let status = house.system.gateway.status().unwrap();
        if status.blobs.bytes == 16 { Ok(status) } else { Err(format!("{:?}", status.blobs)) }
    })
    .unwrap();
    assert_eq!(status.blobs.count, 2);
    let mut left = [hex_digest(&other), hex_digest(&content(9, 0))];
    left.sort();
    assert_eq!(files(&house.blobs_dir()), left);
    assert_eq!(ask(house.http, "DELETE", "/blobs/elsewhere/b", &[], b"").unwrap().0, 204);
    assert_eq!(house.get("/blobs/elsewhere/b").0, 404);
    wait_until("its content to go", DEADLINE, || {
        let left = files(&house.blobs_dir());
        if left.len() == 1 { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .unwrap();
}

#[test]
fn what_is_refused_is_told_and_leaves_nothing() {
    let house = house(&[], "[blobs]\nmax_mib = 1\nquota_mib = 2\n");
    for (path, status, why) in [
        ("/blobs/in/../../etc/passwd", 400, "\\\"..\\\""),
        ("/blobs/in/%2e%2e/%2e%2e/etc/passwd", 400, ".."),
        ("/blobs/in%2f..%2fx", 400, ".."),
        ("/blobs//etc/passwd", 400, "does not begin with a bucket"),
        ("/blobs/in//etc/passwd", 400, "empty part"),
        ("/blobs/in", 400, "does not begin with a bucket"),
        ("/blobs/in/", 400, "empty part"),
        ("/blobs/In/a", 400, "does not begin with a bucket"),
        ("/blobs/in/a%00b", 400, "percent-encoded"),
        ("/blobs/in/a%ff", 400, "percent-encoded"),
        ("/blobs/in/*", 400, "\"*\""),
    ] {
        let (found, body) = house.refused(path, &[], b"x");
        assert_eq!(found, status, "{path}: {body}");
        assert!(body.contains(&why.replace("\\\"", "\"")), "{path}: {body}");
    }
    assert_eq!(http::request(house.http, "PUT", "/blobs/in/a", &[], b"x").unwrap().0, 401);
    assert_eq!(ask(house.http, "POST", "/blobs/in/a", &[], b"x").unwrap().0, 405);
    let wrong = format!("sha-256=:{}:", STANDARD.encode(Digest::of(b"y").as_bytes()));
    for field in ["content-digest", "repr-digest"] {
        let (status, body) = house.refused("/blobs/in/a", &[(field, &wrong)], b"x");
        assert!(status == 400 && body.contains("nothing is stored"), "{status} {body}");
    }
    let (status, body) = house.refused("/blobs/in/a", &[], &vec![0; (1 << 20) + 1]);
    assert!(status == 413 && body.contains("blobs.max_mib"), "{status} {body}");
    // One whose length is not said.
    let mut stream = TcpStream::connect(house.http).unwrap();
    write!(
        stream,
        "PUT /blobs/in/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer a token of some length\r\n\
         transfer-encoding: chunked\r\n\r\n"
    )
    .unwrap();
    for _ in 0..20 {
        // It may be refused before all of it is sent.
        if stream.write_all(&[b"10000\r\n", &[0; 1 << 16][..], b"\r\n"].concat()).is_err() {
            break;
        }
    }
    let mut answer = String::new();
    let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    house.put("/blobs/in/1", &content(1, 1 << 19)).unwrap();
    house.put("/blobs/in/2", &content(2, 1 << 19)).unwrap();
    house.put("/blobs/in/3", &content(3, 1 << 19)).unwrap();
    let (status, body) = house.refused("/blobs/in/4", &[], &content(4, 1 << 19));
    assert!(status == 507 && body.contains("blobs.quota_mib"), "{status} {body}");
    assert_eq!(ask(house.http, "DELETE", "/blobs/in/1", &[], b"").unwrap().0, 204);
    wait_until("room", DEADLINE, || house.put("/blobs/in/4", &content(4, 1 << 19))).unwrap();
    let status = house.system.gateway.status().unwrap();
    assert_eq!((status.blobs.count, files(&house.blobs_dir()).len()), (3, 3), "{status:?}");
}

#[test]
fn every_upload_that_was_answered_took_effect_once_through_kill_9() {
    const UPLOADS: u64 = 60;
    const KILLS: usize = 6;
    let mut house = house(&[("reader", reader())], "");
    let address = house.http;
    let left = Mutex::new((0..UPLOADS).collect::<Vec<_>>());
    let answered = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some(number) = left.lock().unwrap().pop() else { return };
                    // From what fits into one packet up to what takes many pieces.
                    let body = content(number, (number as usize % 8) << 17);
                    let digest =
                        wait_until("an answer", DEADLINE, || put(address, &format!("/blobs/in/{number}"), &body));
                    answered.lock().unwrap().insert(number, digest.unwrap());
                }
            });
        }
        for kill in 1..=KILLS {
            wait_until("uploads between two kills", DEADLINE, || {
                let answered = answered.lock().unwrap().len();
                if answered >= kill * UPLOADS as usize / (KILLS + 2) { Ok(()) } else { Err(format!("{answered}")) }
            })
            .unwrap();
            house.system.gateway.kill9();
            house.system.gateway.start().unwrap();
        }
    });
    let answered = answered.into_inner().unwrap();
    assert_eq!(answered.len() as u64, UPLOADS);
    let handled = house.handled(UPLOADS as usize);
    assert_eq!(handled, (0..UPLOADS).map(|number| (number, 1)).collect());
    for (number, digest) in &answered {
        let (status, found) = house.get(&format!("/blobs/in/{number}"));
        let wanted = content(*number, (*number as usize % 8) << 17);
        assert!(status == 200 && found == wanted && *digest == hex_digest(&wanted), "{number}: {status}");
    }
    let mut wanted: Vec<String> = answered.into_values().collect();
    wanted.sort();
    assert_eq!(files(&house.blobs_dir()), wanted, "no draft and no orphan is left");
    let status = house.system.gateway.status().unwrap();
    assert_eq!((status.dead_letters, status.blobs.count), (0, UPLOADS), "{status:?}");
}

#[test]
fn half_an_upload_and_what_no_row_names_are_gone_after_a_kill() {
    let mut house = house(&[], "");
    house.put("/blobs/in/kept", b"kept").unwrap();
    let mut half = TcpStream::connect(house.http).unwrap();
    write!(
        half,
        "PUT /blobs/in/half HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a token of some length\r\n\
         content-length: 1000\r\n\r\n{}",
        "x".repeat(500)
    )
    .unwrap();
    let drafts = house.blobs_dir().join("drafts");
    wait_until("the draft", DEADLINE, || {
        let bytes: u64 = std::fs::read_dir(&drafts).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        if bytes == 500 { Ok(()) } else { Err(format!("{bytes} bytes")) }
    })
    .unwrap();
    house.system.gateway.kill9();
    // What is between the rename and the commit.
    let orphan = hex_digest(b"orphan");
    let folder = house.blobs_dir().join(&orphan[..2]);
    std::fs::write(folder.join(&orphan), b"orphan").unwrap();
    house.system.gateway.start().unwrap();
    assert_eq!(files(&house.blobs_dir()), [hex_digest(b"kept")]);
    assert_eq!(house.get("/blobs/in/half").0, 404);
    assert_eq!(house.get("/blobs/in/kept"), (200, b"kept".to_vec()));
}

#[test]
fn what_an_event_refers_to_stays_until_the_event_has_come_to_its_end() {
    let house = house(&[("reader", reader())], "");
    house.put("/blobs/in/a", b"x-ray").unwrap();
    let dead = |count| {
        wait_until("the dead letter", DEADLINE, || {
            let status = house.system.gateway.status().unwrap();
            if status.dead_letters == count { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .unwrap();
    };
    dead(1);
    // The name goes on, and the content stays for the letter.
    house.put("/blobs/in/a", &content(5, 0)).unwrap();
    assert_eq!(house.handled(1), BTreeMap::from([(5, 1)]));
    let mut both = [hex_digest(b"x-ray"), hex_digest(&content(5, 0))];
    both.sort();
    assert_eq!(files(&house.blobs_dir()), both);
    let letter = wait_until("the letter to be told", DEADLINE, || {
        let list = house.system.operator.run(["dead", "list"]).map_err(|error| format!("{error:#}"))?;
        let letter = list["letters"][0].clone();
        if letter.is_object() { Ok(letter) } else { Err(list.to_string()) }
    })
    .unwrap();
    let gateway = house.system.operator.run(["gateways"]).unwrap()["gateways"][0]["id"].as_str().unwrap().to_owned();
    house.system.operator.run(["dead", "drop", &gateway, &letter["letter"].to_string()]).unwrap();
    wait_until("the content to go", DEADLINE, || {
        let left = files(&house.blobs_dir());
        if left == [hex_digest(&content(5, 0))] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .unwrap();
}

#[test]
fn a_function_stores_blobs_with_its_effects_and_others_hear_of_them() {
    let on_copy = function(
        "on-copy",
        "[[trigger]]\nblob = \"out/copy\"\n[allow]\nstreams = [\"done\"]\n",
        &format!(
            "{CONTENT} (drop (call $get {ITS_NAME} (i32.const 0) (i32.const 8192) (i32.const 7)))
             (if (i32.ne (call $size {ITS_NAME}) (i32.const 108)) (then unreachable))
             (call $emit (i32.const 0) (i32.const 4) (i32.const 8192) (i32.const 7) (i32.const 0))"
        ),
    );
    let mut house = house(&[("copier", copier()), ("on-copy", on_copy)], "[blobs]\nmax_mib = 1\nquota_mib = 1\n");
    for number in 0..10 {
        house.put("/blobs/raw/a", &content(number, 100)).unwrap();
        if number == 5 {
            house.system.gateway.kill9();
            house.system.gateway.start().unwrap();
        }
    }
    let handled = house.handled(10);
    assert_eq!(handled, (0..10).map(|number| (number, 1)).collect());
    assert_eq!(house.get("/blobs/out/copy").1, content(9, 100));
    // Without room the run fails, and says why.
    let size = (1 << 20) - 12_000;
    wait_until("room", DEADLINE, || house.put("/blobs/raw/b", &content(11, size))).unwrap();
    let detail = wait_until("the dead letter", DEADLINE, || {
        let status = house.system.gateway.status().unwrap();
        if status.dead_letters == 1 { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .unwrap();
    assert_eq!(detail.blobs.count, 3);
    let letters = wait_until("the letter in the cloud", DEADLINE, || {
        let letters = house.system.cloud.records("@dead").unwrap();
        if letters.is_empty() { Err("none") } else { Ok(letters) }
    })
    .unwrap();
    let told = letters[0].body.to_string();
    assert!(told.contains("blobs_full") && told.contains("blobs.quota_mib"), "{told}");
}

/// Brings a file into a folder as is advised: as a whole.
fn bring(folder: &Path, name: &str, content: &[u8]) {
    let draft = folder.join(format!(".{name}"));
    std::fs::write(&draft, content).unwrap();
    std::fs::rename(draft, folder.join(name)).unwrap();
}

fn watching(folder: &Path, more: &str) -> String {
    format!("[[watch]]\nfolder = \"{}\"\nbucket = \"in\"\nfiles = \"*.txt\"\nsettle_ms = 100\n{more}", folder.display())
}

#[test]
fn a_file_that_is_dropped_into_a_folder_is_stored_once_through_restarts() {
    let world = World::new().unwrap();
    let folder = world.path("in");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    let config = watching(&folder, "type = \"text/x\"\n");
    let mut house = house_in(world, &[("reader", reader())], &config);
    bring(&folder, "1.txt", &content(1, 300_000));
    bring(&folder.join("sub"), "2.txt", &content(2, 0));
    bring(&folder, "3.csv", &content(3, 0));
    assert_eq!(house.handled(2), BTreeMap::from([(1, 1), (2, 1)]));
    assert_eq!(house.get("/blobs/in/sub/2.txt"), (200, content(2, 0)));
    assert_eq!(house.get("/blobs/in/3.csv").0, 404);
    // Neither a restart, nor that it is touched, nor that the blob goes, makes it another one.
    assert_eq!(ask(house.http, "DELETE", "/blobs/in/1.txt", &[], b"").unwrap().0, 204);
    house.system.gateway.kill9();
    let touched = std::fs::File::options().append(true).open(folder.join("sub").join("2.txt")).unwrap();
    touched.set_modified(std::time::SystemTime::now()).unwrap();
    house.system.gateway.start().unwrap();
    // Another content is another event; it comes after all that was there before.
    bring(&folder, "1.txt", &content(4, 0));
    house.wait_for_records(3);
    bring(&folder, "5.txt", &content(5, 0));
    assert_eq!(house.handled(4), BTreeMap::from([(1, 1), (2, 1), (4, 1), (5, 1)]));
    // Odd names are told of once.
    std::os::unix::fs::symlink(folder.join("5.txt"), folder.join("link.txt")).unwrap();
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff.txt");
    std::fs::write(folder.join(odd), b"x").unwrap();
    std::fs::write(folder.join("a*.txt"), b"x").unwrap();
    let refused = |count| {
        wait_until("files to be refused", DEADLINE, || {
            let found = house.system.gateway.status().unwrap().blobs.files_refused;
            if found == count { Ok(()) } else { Err(format!("{found}")) }
        })
        .unwrap();
    };
    refused(2);
    bring(&folder, "6.txt", &content(6, 0));
    house.wait_for_records(5);
    refused(2);
    assert_eq!(house.get("/blobs/in/link.txt").0, 404);
    std::fs::remove_dir_all(&folder).unwrap();
    refused(3);
}

#[test]
fn a_file_that_is_deleted_when_it_is_stored_takes_effect_once_through_kill_9() {
    const FILES: u64 = 60;
    let world = World::new().unwrap();
    let folder = world.path("in");
    std::fs::create_dir_all(&folder).unwrap();
    let config = watching(&folder, "after = \"delete\"\n");
    let mut house = house_in(world, &[("reader", reader())], &config);
    for number in 0..FILES {
        bring(&folder, &format!("{number}.txt"), &content(number, (number as usize % 4) << 16));
        if number % 10 == 9 {
            wait_until("some to be stored", DEADLINE, || {
                let left = files(&folder).len();
                if left < 8 { Ok(()) } else { Err(format!("{left} left")) }
            })
            .unwrap();
            house.system.gateway.kill9();
            house.system.gateway.start().unwrap();
        }
    }
    let handled = house.handled(FILES as usize);
    assert_eq!(handled, (0..FILES).map(|number| (number, 1)).collect());
    wait_until("all files to be gone", DEADLINE, || {
        let left = files(&folder);
        if left.iter().all(|name| name.starts_with('.')) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .unwrap();
    for number in 0..FILES {
        let (status, found) = house.get(&format!("/blobs/in/{number}.txt"));
        assert!(status == 200 && found == content(number, (number as usize % 4) << 16), "{number}: {status}");
    }
}
