//! Many clients at once on several threads: connecting, taking each other over, subscribing, publishing, vanishing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use agent_broker::{Inbound, Ingest, Options, QoS};
use mqtt5_protocol::Packet;

use crate::common::{Client, Server, qos_1, qos_2, soon, until};

/// Verdicts come from a thread of the application's own, some in a different order.
struct Elsewhere(mpsc::SyncSender<Inbound>);

impl Ingest for Elsewhere {
    async fn submit(&self, inbound: Inbound) {
        self.0.try_send(inbound).expect("the channel holds more than all clients can send");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_hangs_and_everything_acknowledged_was_accepted() {
    let (sender, inbox) = mpsc::sync_channel::<Inbound>(100_000);
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    std::thread::spawn(move || {
        while let Ok(first) = inbox.recv() {
            let mut group = vec![first];
            group.extend(inbox.try_iter());
            count.fetch_add(group.len(), Ordering::SeqCst);
            group.into_iter().rev().for_each(|inbound| inbound.ack.accept());
        }
    });
    let server = Server::start(Options::default(), Elsewhere(sender)).await;
    let address = server.address;
    let handle = server.handle.clone();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..16_u16 {
        let handle = handle.clone();
        clients.spawn(async move {
            let version = if number % 2 == 0 { 4 } else { 5 };
            let mut acked = 0;
            for round in 0..30_u16 {
                // Two tasks share each name, so that they take each other over at any moment.
                let name = format!("client-{}", number / 2);
                let mut client = Client::raw(address, version).await;
                let mut connect = crate::common::connect_packet(version, &name);
                connect.clean_start = round % 3 == 0;
                client.send(&connect).await;
                let Some(Packet::ConnAck(_)) = client.next().await else { continue };
                let topic = format!("t/{}", number % 4);
                client
                    .try_send(&mqtt5_protocol::packet::subscribe::SubscribePacket {
                        packet_id: 1,
                        filters: vec![mqtt5_protocol::packet::subscribe::TopicFilter::new("t/+", QoS::AtMostOnce)],
                        properties: mqtt5_protocol::Properties::new(),
                        protocol_version: version,
                    })
                    .await;
                for id in 1..=20 {
                    let packet = if id % 5 == 0 { qos_2(&topic, id, "x") } else { qos_1(&topic, id, "x") };
                    let packet = packet.with_retain(id % 7 == 0);
                    client
                        .try_send(&mqtt5_protocol::packet::publish::PublishPacket {
                            protocol_version: version,
                            ..packet
                        })
                        .await;
                }
                // Some leave before the answers come.
                if round % 4 == 1 {
                    continue;
                }
                let mut waiting = 20;
                while waiting > 0 {
                    match client.next().await {
                        Some(Packet::PubAck(_) | Packet::PubRec(_)) => {
                            waiting -= 1;
                            acked += 1;
                        }
                        Some(_) => {}
                        None => break,
                    }
                }
                handle.stats();
            }
            acked
        });
    }
    let mut acked = 0;
    while let Some(done) = soon("all clients", clients.join_next()).await {
        acked += done.expect("no client panics");
    }
    assert!(acked > 0);
    assert!(acked <= accepted.load(Ordering::SeqCst), "an acknowledgement means that it was accepted");
    until("everybody to be gone", || handle.stats().connections == 0).await;
    soon("the broker to stop", server.stop()).await.unwrap();
}
