use device_sdk::temperature::{Address, SensorError, Tmp102};

use crate::recording::Row;
use crate::sensor::{SoftwareBusError, SoftwareTmp102};
use crate::simulation::{Room, utc_now};

/// A sensor and a clock.
pub(crate) struct Thermostat {
    sensor: Tmp102<SoftwareTmp102>,
    times: Box<dyn Iterator<Item = String>>,
    live: bool,
}

/// What is published.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    /// ISO 8601.
    pub(crate) time: String,
    pub(crate) fahrenheit: f32,
}

impl Thermostat {
    /// Measures what was recorded, at the times that were recorded.
    pub(crate) fn replaying(rows: Vec<Row>, limit: Option<usize>) -> Self {
        let (times, temperatures): (Vec<_>, Vec<_>) = rows.into_iter().map(|row| (row.time, row.celsius)).unzip();
        Self::new(temperatures.into_iter(), times.into_iter(), limit, false)
    }

    /// Measures a simulated room, now.
    pub(crate) fn simulated(seed: u64, limit: Option<usize>) -> Self {
        Self::new(Room::new(seed), std::iter::repeat_with(utc_now), limit, true)
    }

    fn new(
        temperatures: impl Iterator<Item = f64> + 'static,
        times: impl Iterator<Item = String> + 'static,
        limit: Option<usize>,
        live: bool,
    ) -> Self {
        let chip = SoftwareTmp102::new(Address::Ground, temperatures);
        Self {
            sensor: Tmp102::new(chip, Address::Ground),
            times: Box::new(times.take(limit.unwrap_or(usize::MAX))),
            live,
        }
    }

    /// Whether time passes for the room whether or not it is measured.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// The next reading, or `None` when all was replayed.
    pub(crate) fn next_reading(&mut self) -> Result<Option<Reading>, SensorError<SoftwareBusError>> {
        let Some(time) = self.times.next() else { return Ok(None) };
        let fahrenheit = self.sensor.read()?.fahrenheit();
        Ok(Some(Reading { time, fahrenheit }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_keeps_times_and_ends_at_its_limit() {
        let row = |time: &str, celsius| Row { time: time.to_owned(), celsius };
        let rows = vec![row("a", 100.0), row("b", 21.04), row("c", 0.0)];
        let mut thermostat = Thermostat::replaying(rows, Some(2));
        let reading = |time: &str, fahrenheit| Ok(Some(Reading { time: time.to_owned(), fahrenheit }));
        assert_eq!(thermostat.next_reading(), reading("a", 212.0));
        assert_eq!(thermostat.next_reading(), reading("b", 69.9125));
        assert_eq!(thermostat.next_reading(), Ok(None));
    }
}
