use serde::Serialize;

use crate::args::Report;

/// What happened, for the one line at the end.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) device: String,
    pub(crate) boot: u32,
    /// Readings that the session accepted: their sequences are 1 to this.
    pub(crate) published: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unacknowledged: u64,
    /// Readings that were dropped unsent because the queue was full (only of a simulated room).
    pub(crate) dropped: u64,
    /// Sends of readings that had been sent before.
    pub(crate) resent: u64,
    /// Connections after the first.
    pub(crate) reconnects: u64,
    /// Milliseconds since 1970.
    pub(crate) first_ack_ms: Option<u64>,
    /// Milliseconds since 1970.
    pub(crate) last_ack_ms: Option<u64>,
}

impl Summary {
    pub(crate) fn line(&self, report: Report) -> serde_json::Result<String> {
        if report == Report::Json {
            return serde_json::to_string(self);
        }
        let Self { device, boot, published, acknowledged, unacknowledged, dropped, resent, reconnects, .. } = self;
        let acks = match (self.first_ack_ms, self.last_ack_ms) {
            (Some(first), Some(last)) => {
                format!(", acknowledgements over {:.1} s", last.saturating_sub(first) as f64 / 1000.0)
            }
            _ => String::new(),
        };
        Ok(format!(
            "{device}, boot {boot}: {published} published, {acknowledged} acknowledged, {unacknowledged} \
             unacknowledged, {dropped} dropped, {resent} resent, {reconnects} reconnects{acks}"
        ))
    }
}
