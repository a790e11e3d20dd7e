//! The program itself: killed, and asked to stop.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sync_core::api::RecordQuery;

use crate::world::{Api, client, range};

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Starts `cloud-sync serve`; answers when it says where it listens.
    fn start(data: &Path) -> (Self, SocketAddr) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cloud-sync"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map(Result::unwrap)
            .inspect(|line| assert!(!line.contains("edge-operator-"), "the token is printed nowhere"))
            .find_map(|line| line.split("address=").nth(1)?.split(' ').next()?.parse().ok())
            .expect("it says where it listens");
        // Nobody must wait for a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        (Self(child), address)
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (mut program, address) = Program::start(dir.path());
    let api = Api::new(address, dir.path());
    let gateway = api.gateway(&[]).await;
    assert_eq!(gateway.send(&range(1, 100, 1)).await, Ok(100));
    program.0.kill().unwrap();
    program.0.wait().unwrap();

    let (_program, address) = Program::start(dir.path());
    let api = Api::new(address, dir.path());
    let gateway = gateway.at(address);
    assert_eq!(gateway.send(&range(90, 20, 1)).await, Ok(109));
    let page = api.page(&RecordQuery { limit: Some(1_000), ..RecordQuery::default() }).await.unwrap();
    assert!(page.records.iter().map(|record| record.sequence).eq(1..=109));
    let counts = api.gateway_state(&gateway.id).await.records;
    assert_eq!((counts.stored, counts.duplicates, counts.missing, counts.conflicts), (109, 11, 0, 0));
}

#[tokio::test]
async fn a_signal_ends_it_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-INT"] {
        let (mut program, address) = Program::start(dir.path());
        let healthy = client().get(format!("http://{address}/healthz")).send().await.unwrap();
        assert_eq!(healthy.status(), 200);
        assert!(Command::new("kill").args([signal, &program.0.id().to_string()]).status().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = program.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "still running after {signal}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(status.success(), "{signal}: {status}");
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cloud-sync")).args(["serve", "--data"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains(file.to_str().unwrap()), "{message}");
}
