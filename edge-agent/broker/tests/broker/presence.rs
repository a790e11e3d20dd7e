//! What the application hears of clients that come and go.

use std::sync::{Arc, Mutex};

use agent_broker::{Inbound, Ingest, Options, Presence};
use tokio::sync::Semaphore;

use crate::common::{Client, Server, connect_packet, qos_1, until};

/// Writes down when the device comes and goes, as soon as it may.
struct Book {
    may: Arc<Semaphore>,
    heard: Arc<Mutex<Vec<Presence>>>,
}

impl Book {
    fn new(may: usize) -> (Self, Arc<Semaphore>, Arc<Mutex<Vec<Presence>>>) {
        let (may, heard) = (Arc::new(Semaphore::new(may)), Arc::new(Mutex::default()));
        (Self { may: may.clone(), heard: heard.clone() }, may, heard)
    }
}

impl Ingest for Book {
    async fn submit(&self, inbound: Inbound) {
        inbound.ack.accept();
    }

    async fn presence(&self, client: &Arc<str>, presence: Presence) {
        self.may.acquire().await.expect("never closed").forget();
        if &**client == "device" {
            self.heard.lock().unwrap().push(presence);
        }
    }
}

#[tokio::test]
async fn a_client_that_is_back_at_once_is_not_gone() {
    let (book, _, heard) = Book::new(usize::MAX >> 4);
    let server = Server::start(Options::default(), book).await;
    for round in 0..100 {
        heard.lock().unwrap().clear();
        let old = Client::connect(server.address, 4, "device").await;
        let mut new = Client::raw(server.address, 4).await;
        // When somebody who came later was answered, the broker listens to this one, too.
        drop(Client::connect(server.address, 4, "other").await);
        until("the other client to be gone", || server.handle.stats().connections == 1).await;
        // Both at the same time: the broker may see to the new connection first.
        new.try_send(&connect_packet(4, "device")).await;
        drop(old);
        new.next().await.expect("a CONNACK");
        until("the old connection to be gone", || server.handle.stats().connections == 1).await;
        assert_eq!(heard.lock().unwrap().last(), Some(&Presence::Connected), "round {round}");
        drop(new);
        until("the new one to be gone", || server.handle.stats().connections == 0).await;
        assert_eq!(heard.lock().unwrap().last(), Some(&Presence::Disconnected), "round {round}");
    }
}

#[tokio::test]
async fn a_client_is_answered_while_the_application_takes_no_more_and_is_read_after() {
    let (book, may, heard) = Book::new(0);
    let server = Server::start(Options::default(), book).await;
    let mut client = Client::connect(server.address, 4, "device").await;
    client.publish(qos_1("t", 1, "")).await;
    assert!(heard.lock().unwrap().is_empty());
    may.add_permits(1);
    assert_eq!(client.puback().await, 1);
    assert_eq!(*heard.lock().unwrap(), [Presence::Connected]);
}
