//! What time it is, as far as the gateway knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sync_protocol::records::Stamp;

use crate::limits;

/// Reads the clocks. Nothing is ever ordered by what it says.
#[derive(Debug, Clone)]
pub struct Clock {
    boot: u64,
    started: Instant,
    // Of the system when the agent started.
    uptime_us: u64,
    synchronised: Arc<Synchronised>,
}

/// Whether the wall clock is synchronised, asked once a second: it is a system call, and every event is stamped.
#[derive(Debug, Default)]
struct Synchronised(AtomicU64);

impl Synchronised {
    // In the lowest bit the answer, above it the second in which it was given; 0: it never was.
    fn at(&self, second: u64, ask: impl FnOnce() -> bool) -> bool {
        let known = self.0.load(Ordering::Relaxed);
        if known >> 1 == second + 1 {
            return known & 1 == 1;
        }
        let answer = ask();
        self.0.store((second + 1) << 1 | u64::from(answer), Ordering::Relaxed);
        answer
    }
}

impl Clock {
    /// Asks the system which start of it this is, and how long ago that was.
    pub fn start() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        // Linux: proc(5), a random UUID for each boot; its first 64 bits are as good. Where there is none, 0 says so.
        let digits: String = read("/proc/sys/kernel/random/boot_id").chars().filter(char::is_ascii_hexdigit).collect();
        let boot = digits.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
        let uptime = read("/proc/uptime");
        let seconds = uptime.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok()).unwrap_or(0.0);
        let uptime_us = (seconds * 1e6) as u64;
        Self { boot, started: Instant::now(), uptime_us, synchronised: Arc::default() }
    }

    /// Wall clock, microseconds since 1970-01-01 UTC; 0 if it is set to before that.
    pub fn wall_us(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
    }

    /// All clocks.
    pub fn stamp(&self) -> Stamp {
        let elapsed = self.started.elapsed();
        let synchronised = self.synchronised.at(elapsed.as_secs(), synchronised);
        let monotonic_us = self.uptime_us + elapsed.as_micros() as u64;
        Stamp { wall_us: self.wall_us(), monotonic_us, boot: self.boot, synchronised }
    }

    /// How long to wait for this time of the wall clock, or for nothing: until it must be looked at again at most, for it may
    /// be set.
    pub fn until(&self, wall_us: Option<u64>) -> Duration {
        let wait = wall_us.map(|wall_us| Duration::from_micros(wall_us.saturating_sub(self.wall_us())));
        wait.map_or(limits::LOOK_AT_CLOCK, |wait| wait.min(limits::LOOK_AT_CLOCK))
    }

    /// Seconds since the agent started.
    pub fn agent_uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

/// Whether the kernel holds the wall clock to be synchronised: an NTP or PTP daemon that keeps it says so there
/// (ntp_adjtime(3)).
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "there is no safe way to ask the kernel")]
fn synchronised() -> bool {
    // SAFETY: all bytes of a `timex` may be zero; `modes` 0 asks and sets nothing, and the kernel writes into what it is
    // given only.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    // An error is -1: nobody knows.
    state >= 0 && state != libc::TIME_ERROR
}

/// Nobody knows.
#[cfg(not(target_os = "linux"))]
fn synchronised() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_the_clock_is_synchronised_is_asked_once_a_second() {
        let known = Synchronised::default();
        let asked = std::cell::Cell::new(0);
        let at = |second, answer| {
            known.at(second, || {
                asked.set(asked.get() + 1);
                answer
            })
        };
        assert!(at(0, true) && at(0, false));
        assert!(!at(1, false) && !at(1, true));
        assert_eq!(asked.get(), 2);
    }
}
