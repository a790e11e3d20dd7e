//! The writing half of a connection: acknowledgements once their messages have a verdict, replies, and deliveries. All
//! that is ready at one time leaves in one write.

use bytes::BytesMut;
use mqtt5_protocol::{PacketType, ProtocolVersion, QoS};
use tokio::net::tcp::WriteHalf;
use tokio::time::Instant;

use crate::connection::{Connection, End, write_all};
use crate::encode;
use crate::inflight::{Outcome, Slot};
use crate::ingest::Ingest;
use crate::link::Close;

/// Bytes that are gathered before they are written: what a socket takes at once.
const WRITE: usize = 64 << 10;

/// Messages that are routed before other tasks get a turn, so that their subscribers can keep up.
pub(crate) const BATCH: usize = 256;

/// Capacity that an idle connection keeps for the next write.
const IDLE: usize = 1 << 10;

/// Bytes of a reason string. It is for a person to read.
const REASON: usize = 1_024;

impl<I: Ingest> Connection<I> {
    /// Writes until the connection is to end.
    pub(crate) async fn write(&self, write: &mut WriteHalf<'_>, out: &mut BytesMut) -> End {
        let mut slots = Vec::new();
        loop {
            let full = match self.gather(&mut slots, out) {
                Ok(full) => full,
                Err(end) => return end,
            };
            if full {
                tokio::task::yield_now().await;
            }
            if !out.is_empty() {
                if let Err(end) = self.flush(write, out).await {
                    return end;
                }
            } else if !full {
                if out.capacity() > IDLE {
                    *out = BytesMut::new();
                }
                self.link.wake.notified().await;
            }
        }
    }

    /// Writes all of `out`, unless the connection is to end at once: a client that does not read must not keep it open.
    async fn flush(&self, write: &mut WriteHalf<'_>, out: &mut BytesMut) -> Result<(), End> {
        loop {
            tokio::select! {
                biased;
                written = write_all(write, out) => return written.map_err(End::Lost),
                () = self.link.wake.notified() => {}
            }
            // Whatever else woke it is seen when the write is through.
            match self.link.shared().close {
                Some(close) if close != Close::Drain => return Err(close.into()),
                _ => {}
            }
        }
    }

    /// Puts into `out` what can be sent now. True when a whole batch was ready, so that there may be more.
    fn gather(&self, slots: &mut Vec<(Slot, Outcome)>, out: &mut BytesMut) -> Result<bool, End> {
        self.link.resolved(BATCH, slots);
        let full = slots.len() == BATCH;
        for (slot, outcome) in slots.drain(..) {
            self.answer(slot, outcome, Some(out))?;
        }
        let (close, settled) = {
            let mut shared = self.link.shared();
            out.extend_from_slice(&shared.replies);
            shared.replies.clear();
            if std::mem::take(&mut shared.reader_waits) {
                self.link.room.notify_one();
            }
            (shared.close, shared.window.is_empty())
        };
        match close {
            None => {}
            Some(Close::Drain) if !settled || !out.is_empty() => return Ok(full),
            Some(close) => return Err(close.into()),
        }
        let mut place = self.seat.place();
        if place.belongs_to(&self.link) {
            let sent = place.session.outbox.transmit(&self.hello.peer, Instant::now().into_std(), WRITE, out);
            drop(place);
            self.hub.counters.delivered.add(sent.delivered);
            self.hub.counters.dropped.add(sent.dropped);
        }
        Ok(full)
    }

    /// Does what follows from a verdict. Without `out` the client is gone, and only others hear of it.
    pub(crate) fn answer(&self, slot: Slot, outcome: Outcome, out: Option<&mut BytesMut>) -> Result<(), End> {
        let Slot { packet_id, message, .. } = slot;
        let awaited = packet_id != 0;
        let kind = if message.qos == QoS::ExactlyOnce { PacketType::PubRec } else { PacketType::PubAck };
        if awaited && kind == PacketType::PubRec {
            self.settle_qos_2(packet_id, outcome == Outcome::Accepted);
        }
        let version = self.hello.peer.version;
        match outcome {
            Outcome::Accepted => {
                self.hub.route(message, Instant::now().into_std());
                if awaited && let Some(out) = out {
                    encode::ack(out, version, kind, packet_id, 0, "");
                    self.hub.counters.acks_out.add(1);
                }
                Ok(())
            }
            Outcome::Refused(refusal) => {
                self.hub.counters.refused.add(1);
                let client = &self.seat.client_id;
                tracing::debug!(%client, topic = %message.topic, text = %refusal.text, "a message is refused");
                if !awaited {
                    return Ok(());
                }
                if version == ProtocolVersion::V311 {
                    return Err(End::Refused(refusal.text.into_owned()));
                }
                if let Some(out) = out {
                    // A packet that the client cannot take would be worse than one without words [MQTT-3.4.2-2].
                    let fits = refusal.text.len() <= REASON && refusal.text.len() + 16 <= self.hello.peer.max_packet;
                    let wanted = self.hello.peer.reasons && fits && !refusal.text.contains('\0');
                    let text = if wanted { &*refusal.text } else { "" };
                    encode::ack(out, version, kind, packet_id, refusal.code as u8, text);
                }
                Ok(())
            }
            Outcome::Dropped if awaited => Err(End::Unanswered),
            Outcome::Dropped => Ok(()),
        }
    }

    /// Notes the verdict in the session. If the client has come back and sent the message again, it waits there.
    fn settle_qos_2(&self, packet_id: u16, committed: bool) {
        let mut place = self.seat.place();
        if !place.session.on_verdict(packet_id, self.link.id, committed) {
            return;
        }
        let Some(link) = place.link.clone() else { return };
        drop(place);
        if committed {
            // Without a reason code the packet is the same in both versions.
            link.reply(|out| encode::ack(out, ProtocolVersion::V311, PacketType::PubRec, packet_id, 0, ""));
            self.hub.counters.acks_out.add(1);
        } else {
            link.close(Close::SendAgain);
        }
    }
}
