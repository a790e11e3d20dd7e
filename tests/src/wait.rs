//! Waiting for a condition, never for a time.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// Waits until a condition holds, and returns what it gives. Until then it says what is seen instead.
///
/// # Errors
/// The deadline passed first. Names what was waited for, and what was seen last.
pub fn wait_until<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match condition() {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= end => bail!("waited {deadline:?} for {what}, in vain: {seen:#}"),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_the_condition_or_says_what_was_seen() {
        let mut looks = 0;
        let found = wait_until("three looks", Duration::from_secs(60), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err("fewer") }
        });
        assert_eq!(found.unwrap(), 3);
        let late = wait_until("rain", Duration::ZERO, || Err::<(), _>("the sun shines"));
        assert_eq!(late.unwrap_err().to_string(), "waited 0ns for rain, in vain: the sun shines");
    }
}
