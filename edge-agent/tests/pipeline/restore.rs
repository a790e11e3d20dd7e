//! What was deployed runs again after a start, or what ran before it does.

use agent_functions::Engine;
use agent_store::{DeadKind, Deployment, Installed};
use edge_agent::artifacts::Artifacts;
use edge_agent::fleet::Fleet;
use function_package::Package;
use sync_protocol::fleet::FunctionStatus;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::running::{DEADLINE, MANIFEST, Running, package, traps_on_x};

struct Gateway {
    dir: TempDir,
    running: Running,
    artifacts: Artifacts,
    runtime: Runtime,
}

impl Gateway {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(dir.path());
        let artifacts = Artifacts::open(dir.path()).unwrap();
        Self { dir, running, artifacts, runtime: Runtime::new().unwrap() }
    }

    fn installed(&self, package: &Package, on_disk: bool) -> Installed {
        if on_disk {
            self.artifacts.put(package.digest(), package.bytes()).unwrap();
        }
        let (digest, version) = (*package.digest().as_bytes(), package.manifest().version.to_string());
        Installed { deployment: 1, digest, version, config: Vec::new() }
    }

    fn start(&self, status: FunctionStatus, current: Installed, previous: Option<Installed>) -> Fleet {
        let row = Deployment {
            deployment: 2,
            status,
            detail: String::new(),
            current: Some(current),
            previous,
            refused: None,
        };
        let (pipeline, writer) = (self.running.pipeline.clone(), self.running.writer.clone());
        let artifacts = Artifacts::open(self.dir.path()).unwrap();
        let deployments = vec![("f".to_owned(), row)];
        let fleet = Fleet::start(Engine::new(), artifacts, Vec::new(), pipeline, writer, Vec::new(), deployments);
        self.runtime.block_on(fleet).unwrap()
    }

    fn compile_all(&self, fleet: &mut Fleet) {
        self.runtime.block_on(fleet.compile_all()).unwrap();
    }

    fn row(&mut self) -> Deployment {
        self.running.reader.deployments().unwrap().remove(0).1
    }
}

/// A package whose module cannot be loaded: it does not export what the gateway calls.
fn broken() -> Package {
    Package::pack(&wat::parse_str("(module (memory (export \"memory\") 1))").unwrap(), MANIFEST).unwrap()
}

#[test]
fn an_event_that_comes_first_has_its_function_compiled() {
    let gateway = Gateway::new();
    let current = gateway.installed(&package(&traps_on_x()), true);
    let fleet = gateway.start(FunctionStatus::Running, current, None);
    // Nobody else has compiled anything.
    gateway.running.submit(1, b"one").recv_timeout(DEADLINE).unwrap();
    assert_eq!(fleet.report()[0].status, FunctionStatus::Running);
    gateway.running.stop();
}

#[test]
fn where_a_version_cannot_be_loaded_the_previous_one_takes_its_events_and_none_is_lost() {
    let mut gateway = Gateway::new();
    let (good, broken) = (gateway.installed(&package(&traps_on_x()), true), gateway.installed(&broken(), true));
    let mut fleet = gateway.start(FunctionStatus::Running, broken.clone(), Some(good.clone()));
    let waits = gateway.running.submit(1, b"one");
    gateway.compile_all(&mut fleet);
    waits.recv_timeout(DEADLINE).unwrap();
    gateway.running.submit(2, b"two").recv_timeout(DEADLINE).unwrap();
    assert_eq!(gateway.running.records(), [b"one".to_vec(), b"two".to_vec()]);
    let row = gateway.row();
    assert_eq!((row.status, row.current, row.previous), (FunctionStatus::RolledBack, Some(good), None));
    assert_eq!(row.refused, Some(broken.digest));
    assert!(row.detail.contains("cannot be loaded"), "{}", row.detail);
    gateway.running.stop();
}

#[test]
fn where_nothing_came_before_it_what_waits_is_in_the_dead_letters() {
    let mut gateway = Gateway::new();
    let broken = gateway.installed(&broken(), true);
    let mut fleet = gateway.start(FunctionStatus::Trial, broken, None);
    let waits = [(); 2].map(|()| gateway.running.submit(1, b"one"));
    gateway.compile_all(&mut fleet);
    for seen in waits {
        seen.recv_timeout(DEADLINE).unwrap();
    }
    let letters = gateway.running.reader.dead_letters(0, 10).unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].dead.kind, &*letters[0].event.payload), (DeadKind::Refused, &b"one"[..]));
    assert!(letters[0].dead.reason.contains("cannot be loaded"), "{}", letters[0].dead.reason);
    // Nobody wants it any more.
    gateway.running.submit(2, b"two").recv_timeout(DEADLINE).unwrap();
    assert_eq!(gateway.running.pipeline.counters.unmatched.get(), 1);
    let row = gateway.row();
    assert_eq!((row.status, row.current), (FunctionStatus::Failed, None));
    gateway.running.stop();
}

#[test]
fn where_a_file_is_gone_the_previous_version_runs() {
    let mut gateway = Gateway::new();
    let (good, gone) = (gateway.installed(&package(&traps_on_x()), true), gateway.installed(&broken(), false));
    gateway.start(FunctionStatus::Trial, gone, Some(good.clone()));
    gateway.running.submit(1, b"one").recv_timeout(DEADLINE).unwrap();
    let row = gateway.row();
    assert_eq!((row.status, row.current), (FunctionStatus::RolledBack, Some(good)));
    assert!(row.detail.contains("is not on the disk any more"), "{}", row.detail);
    gateway.running.stop();
}

#[test]
fn a_gateway_that_stops_before_it_is_decided_acknowledges_nothing() {
    let gateway = Gateway::new();
    let broken = gateway.installed(&broken(), true);
    let _fleet = gateway.start(FunctionStatus::Running, broken, None);
    let waits = gateway.running.submit(1, b"one");
    gateway.running.stop();
    waits.recv_timeout(DEADLINE).unwrap_err();
}
