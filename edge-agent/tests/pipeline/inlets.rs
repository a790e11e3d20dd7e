//! What an inlet's connection gets through after everything in flight was thrown away.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use bytes::BytesMut;
use edge_agent::config::{Connect as Broker, Listen};
use edge_agent::inlet::Inlet;
use edge_agent::inlet::broker::BrokerInlet;
use edge_agent::inlet::client::ClientInlet;
use rumqttc::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, QoS, SubAck, SubscribeReasonCode, mqttbytes,
};
use tokio::sync::{mpsc, watch};

use crate::running::{DEADLINE, Running, Saboteur, traps_on_x, trusted, version};

const MAX_PACKET_BYTES: u32 = 1 << 20;

/// The other end of an inlet's connection.
struct Peer {
    stream: TcpStream,
    bytes: BytesMut,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { stream, bytes: BytesMut::new() }
    }

    fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> Result<usize, mqttbytes::Error>) {
        let mut out = BytesMut::new();
        write(&mut out).unwrap();
        self.stream.write_all(&out).unwrap();
    }

    fn publish(&mut self, qos: QoS, packet_id: u16, payload: &str) {
        let mut publish = Publish::new("a/b", qos, payload);
        publish.pkid = packet_id;
        self.send(|out| publish.write(out));
    }

    fn next(&mut self) -> Packet {
        loop {
            if let Ok(packet) = Packet::read(&mut self.bytes, MAX_PACKET_BYTES as usize) {
                return packet;
            }
            let mut more = [0; 1024];
            let read = self.stream.read(&mut more).unwrap();
            assert!(read > 0, "the connection ended");
            self.bytes.extend_from_slice(&more[..read]);
        }
    }
}

/// Runs an inlet, and gives its connection's other end to the test.
fn through(inlet: impl Inlet + 'static, connected: impl FnOnce() -> Peer) {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    running.run("f", trusted(version(&traps_on_x())));
    let (stop, stopping) = watch::channel(false);
    let (_outgoing, outgoing) = mpsc::channel(1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let inlet = runtime.spawn(inlet.run(running.pipeline.clone(), outgoing, stopping));
    let mut peer = connected();
    peer.publish(QoS::AtLeastOnce, 1, "one");
    assert_eq!(peer.next(), Packet::PubAck(PubAck::new(1)));

    // Nothing of this connection is on its way now, so it goes on.
    let saboteur = Saboteur::at_work(dir.path());
    running.submit(1, b"thrown away").recv_timeout(DEADLINE).unwrap_err();
    saboteur.stops();
    // Nobody would send this one again.
    peer.publish(QoS::AtMostOnce, 0, "two");
    peer.publish(QoS::AtLeastOnce, 2, "three");
    assert_eq!(peer.next(), Packet::PubAck(PubAck::new(2)));
    assert_eq!(running.records(), ["one", "two", "three"].map(|body| body.as_bytes().to_vec()));

    stop.send_replace(true);
    drop(peer);
    runtime.block_on(inlet).unwrap();
    running.stop();
}

#[test]
fn a_quiet_connection_of_the_own_broker_outlives_a_failed_commit() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listen = Listen {
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        users: Default::default(),
        rules: Vec::new(),
        max_packet_bytes: MAX_PACKET_BYTES,
        mapping: Default::default(),
    };
    let inlet = runtime.block_on(BrokerInlet::bind(&listen, 1)).unwrap();
    let address = inlet.local_addr();
    through(inlet, || {
        let mut peer = Peer::new(TcpStream::connect(address).unwrap());
        peer.send(|out| Connect::new("device").write(out));
        assert_eq!(peer.next(), Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false)));
        peer
    });
}

#[test]
fn a_quiet_connection_to_an_outside_broker_outlives_a_failed_commit() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let connect = Broker {
        host: Ipv4Addr::LOCALHOST.to_string(),
        port: listener.local_addr().unwrap().port(),
        client_id: "gateway".to_owned(),
        login: None,
        device_level: None,
        max_packet_bytes: MAX_PACKET_BYTES,
        mapping: Default::default(),
    };
    through(ClientInlet::new(connect), || {
        let mut peer = Peer::new(listener.accept().unwrap().0);
        assert!(matches!(peer.next(), Packet::Connect(_)));
        peer.send(|out| ConnAck::new(ConnectReturnCode::Success, false).write(out));
        let Packet::Subscribe(subscribe) = peer.next() else { panic!("no SUBSCRIBE") };
        let granted = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)];
        peer.send(|out| SubAck::new(subscribe.pkid, granted).write(out));
        peer
    });
}
