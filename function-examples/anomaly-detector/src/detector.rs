//! The detector itself: constant size, one reading at a time, no knowledge of what comes.

use serde::{Deserialize, Serialize};

/// Readings over which the level is learned: so slow that a week's departure does not become normal at once.
const LEVEL_MEMORY: f64 = 1000.0;

/// Readings of an hour of the day over which its mean is learned: a month of hourly ones, two and a half days of those
/// that come every five minutes.
const HOUR_MEMORY: f64 = 30.0;

/// Readings over which the tail of the errors is learned: long, for the tail is rare.
const TAIL_MEMORY: f64 = 4000.0;

/// Readings that the test for a shift looks at.
const SHIFT_MEMORY: f64 = 12.0;

/// Of how many readings one may be reported by chance, by the tests for a jump and a shift.
const ONE_IN: f64 = 10_000.0;

/// How far outside of all earlier values a record is, as a part of their range.
const RECORD_MARGIN: f64 = 0.08;

/// Readings of a block: a record is measured against the blocks before the last two, or a slow departure would set a new
/// record with each reading and none would be far from the one before.
const BLOCK: u32 = 24;

/// How often readings must usually come for one to count as late: three times the usual interval.
const LATE: f64 = 3.0;

/// How much worse than the last report something must be to be reported while silent: a fault that follows something
/// small is not to be missed.
const WORSE: f64 = 2.0;

/// What a deployment may set.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Scores are multiplied by it.
    pub sensitivity: f64,
    /// Readings before the first report.
    pub learn: u32,
    /// Normal readings in a row after a report before the next one.
    pub quiet: u32,
}

/// Which test found an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Test {
    /// The forecast, given its last error, was far off.
    Jump,
    /// The forecast was off for some time.
    Shift,
    /// The value is outside of all that was seen.
    Record,
}

/// An anomaly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anomaly {
    /// What the forecast was.
    pub expected: f64,
    /// The test with the highest score.
    pub test: Test,
    /// How far beyond the threshold, which is at 1.
    pub score: f64,
}

/// What was learned of one sensor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Detector {
    /// Readings seen.
    count: u32,
    /// Normal readings to come before the next report.
    silent_for: u32,
    /// Score of the last report while silent, else 0.
    worst: f64,
    clock: Clock,
    forecast: Forecast,
    jump: Tail,
    shift: Tail,
    /// Mean of the last errors.
    departure: f64,
    seen: Seen,
}

impl Detector {
    /// Takes a reading, `seconds` after some midnight, and says whether it is to be reported.
    pub fn step(&mut self, seconds: i64, value: f64, settings: &Settings) -> Option<Anomaly> {
        let on_time = self.clock.step(seconds);
        let hour = usize::try_from(seconds.rem_euclid(86_400) / 3600).unwrap_or(0);
        let expected = self.forecast.at(hour, value);
        let error = value - expected;
        self.departure += (error - self.departure) / SHIFT_MEMORY;

        // After a gap nobody knows the last error.
        let jump = if on_time { self.jump.step((error - self.forecast.carried_over()).abs()) } else { 0.0 };
        let shift = self.shift.step(self.departure.abs());
        let record = self.seen.step(value, self.count);
        self.forecast.learn(hour, error, on_time);
        self.count = self.count.saturating_add(1);

        let scores = [(jump, Test::Jump), (shift, Test::Shift), (record, Test::Record)];
        let (score, test) = scores.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
        let score = score * settings.sensitivity;
        self.silent_for = self.silent_for.saturating_sub(1);
        if self.silent_for == 0 {
            self.worst = 0.0;
        }
        if self.count <= settings.learn || score < 1.0 {
            return None;
        }
        self.silent_for = settings.quiet;
        if score < WORSE * self.worst {
            return None;
        }
        self.worst = score;
        Some(Anomaly { expected, test, score })
    }
}

/// How often readings come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Clock {
    last: Option<i64>,
    /// Seconds; 0: not known yet.
    interval: f64,
}

impl Clock {
    /// Whether a reading comes after the last one without a gap.
    fn step(&mut self, seconds: i64) -> bool {
        let Some(last) = self.last.replace(seconds) else { return false };
        let passed = seconds.saturating_sub(last) as f64;
        if passed < 0.0 || (self.interval > 0.0 && passed > LATE * self.interval) {
            // So that a sensor that was made slower is believed after some readings.
            self.interval *= 1.1;
            return false;
        }
        self.interval += (passed - self.interval) * if self.interval > 0.0 { 0.05 } else { 1.0 };
        true
    }
}

/// Level and daily season, and how much of one error carries over to the next.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Forecast {
    count: f64,
    level: f64,
    hours: [Mean; 24],
    /// Variance of the errors.
    variance: f64,
    /// The last error as it was, and cut.
    last: (f64, f64),
    /// Sums over the past of `error × last error` and `last error²`.
    carried: (f64, f64),
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Mean {
    count: f64,
    mean: f64,
}

impl Forecast {
    fn at(&mut self, hour: usize, first_value: f64) -> f64 {
        if self.count == 0.0 {
            self.level = first_value;
        }
        self.level + self.hours[hour].mean
    }

    /// The error that is to be expected after the last one: of a room's temperature most of it stays, of noise nothing.
    fn carried_over(&self) -> f64 {
        let (with_last, of_last) = self.carried;
        if of_last > 0.0 { (with_last / of_last).clamp(0.0, 1.0) * self.last.0 } else { 0.0 }
    }

    fn learn(&mut self, hour: usize, error: f64, on_time: bool) {
        // What is far out is cut, or one fault would be learned as the new normal.
        let most = 4.0 * self.variance.sqrt();
        let cut = if self.count > 50.0 && most > 0.0 { error.clamp(-most, most) } else { error };
        self.count = (self.count + 1.0).min(LEVEL_MEMORY);
        self.level += cut / self.count;
        self.variance += (cut * cut - self.variance) / self.count;

        let mean = &mut self.hours[hour];
        mean.count = (mean.count + 1.0).min(HOUR_MEMORY);
        // Half: the level takes the rest, and both together must not go beyond the error.
        mean.mean += 0.5 * cut / (mean.count + 1.0);

        if on_time {
            let last = self.last.1;
            self.carried = (0.999 * self.carried.0 + cut * last, 0.999 * self.carried.1 + last * last);
        }
        self.last = (error, cut);
    }
}

/// The upper tail of a score that has no known distribution: beyond mean and two deviations it is taken as exponential
/// (the idea of peaks over threshold; Siffer and others, "Anomaly Detection in Streams with Extreme Value Theory", 2017).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Tail {
    count: f64,
    mean: f64,
    variance: f64,
    /// How often it is beyond the knee.
    rate: f64,
    /// By how much, on average.
    excess: f64,
}

impl Tail {
    /// The score as a part of the threshold, by what was learned before it.
    fn step(&mut self, score: f64) -> f64 {
        let deviation = self.variance.sqrt();
        let knee = self.mean + 2.0 * deviation;
        // At least what half a deviation and one in 200 give, for the tail of a short past is thin.
        let threshold = knee + self.excess.max(0.5 * deviation) * (self.rate.max(0.005) * ONE_IN).ln();
        let part = if threshold > 0.0 { score / threshold } else { 0.0 };

        let cut = if self.count > 50.0 && threshold > 0.0 { score.min(1.5 * threshold) } else { score };
        self.count = (self.count + 1.0).min(TAIL_MEMORY);
        let beyond = self.count > 10.0 && cut > knee;
        self.rate += (f64::from(u8::from(beyond)) - self.rate) / self.count;
        if beyond {
            let of_the_tail = (1.0 / (self.count * self.rate)).clamp(0.005, 1.0);
            self.excess += (cut - knee - self.excess) * of_the_tail;
        }
        let step = cut - self.mean;
        self.mean += step / self.count;
        self.variance = (1.0 - 1.0 / self.count) * (self.variance + step * step / self.count);
        part
    }
}

/// The range of all that was seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Seen {
    /// Least and greatest of the blocks before the last two.
    past: (f64, f64),
    /// The last block, and the one that grows.
    blocks: [(f64, f64); 2],
}

impl Seen {
    /// How far outside of the past the value is, as a part of the margin.
    fn step(&mut self, value: f64, count: u32) -> f64 {
        if count == 0 {
            *self = Self { past: (value, value), blocks: [(value, value); 2] };
        }
        let range = self.past.1 - self.past.0;
        let outside = (value - self.past.1).max(self.past.0 - value);
        let part = if range > 0.0 && outside > 0.0 { outside / (RECORD_MARGIN * range) } else { 0.0 };
        let join = |a: (f64, f64), b: (f64, f64)| (a.0.min(b.0), a.1.max(b.1));
        self.blocks[1] = join(self.blocks[1], (value, value));
        if count % BLOCK == BLOCK - 1 {
            self.past = join(self.past, self.blocks[0]);
            self.blocks = [self.blocks[1], (value, value)];
        }
        part
    }
}
