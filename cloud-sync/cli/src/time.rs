//! Durations and moments as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_S: u64 = 86_400;

/// The last day that can be written with four digits of a year: 9999-12-31.
const LAST_DAY: i64 = 2_932_896;

/// Microseconds since 1970-01-01 UTC.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Reads `90s`, `15m`, `1h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let form = || "write a number and one of s, m, h, d, such as 90s, 15m, 1h or 7d".to_owned();
    let unit = text.chars().last().ok_or_else(form)?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| form())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => DAY_S,
        _ => return Err(form()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(form)
}

/// Reads a moment, in microseconds since 1970: RFC 3339 in UTC, or a duration for "that long ago".
pub(crate) fn parse_moment(text: &str) -> Result<u64, String> {
    if let Ok(ago) = parse_duration(text) {
        let ago = u64::try_from(ago.as_micros()).unwrap_or(u64::MAX);
        return Ok(now_us().saturating_sub(ago));
    }
    parse_utc(text).ok_or_else(|| "write 2026-11-03T10:00:00Z, or 15m for 15 minutes ago".to_owned())
}

/// `YYYY-MM-DDTHH:MM:SSZ` (RFC 3339, section 5.6, without fractions and offsets).
fn parse_utc(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, separator: char, widths: [usize; 3]| -> Option<[i64; 3]> {
        let parts: Vec<&str> = text.split(separator).collect();
        let right = |(part, width): (&&str, usize)| part.len() == width && part.bytes().all(|b| b.is_ascii_digit());
        if parts.len() != 3 || !parts.iter().zip(widths).all(right) {
            return None;
        }
        Some([parts[0].parse().ok()?, parts[1].parse().ok()?, parts[2].parse().ok()?])
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let days = days_of(year, month, day);
    let exists = days >= 0 && civil(days) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    exists.then(|| (days * 86_400 + hour * 3_600 + minute * 60 + second).unsigned_abs() * 1_000_000)
}

/// Reads a moment with all that RFC 3339, section 5.6 allows, and an offset without a colon, as strftime writes it.
pub(crate) fn parse_instant(text: &str) -> Option<u64> {
    let (local, offset_s) = match text.strip_suffix('Z') {
        Some(local) => (local, 0),
        None => {
            let at = text.rfind(['+', '-']).filter(|at| *at > "2026-11-03".len())?;
            let digits: String = text[at + 1..].chars().filter(|character| *character != ':').collect();
            let [hours, minutes] = [digits.get(..2)?, digits.get(2..)?].map(|digits| digits.parse::<i64>().ok());
            let (hours, minutes) = (hours.filter(|hours| *hours < 24)?, minutes.filter(|minutes| *minutes < 60)?);
            let seconds = hours * 3_600 + minutes * 60;
            (&text[..at], if text[at..].starts_with('-') { -seconds } else { seconds })
        }
    };
    let (whole, fraction) = local.split_once('.').unwrap_or((local, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let micros: u64 = format!("{fraction:0<6}")[..6].parse().ok()?;
    let seconds = i64::try_from(parse_utc(&format!("{whole}Z"))? / 1_000_000).ok()?;
    Some(u64::try_from(seconds - offset_s).ok()? * 1_000_000 + micros)
}

/// Writes a moment as RFC 3339 in UTC, with milliseconds.
pub(crate) fn show(us: u64) -> String {
    let (seconds, milliseconds) = (us / 1_000_000, us / 1_000 % 1_000);
    let days = i64::try_from(seconds / DAY_S).unwrap_or(i64::MAX);
    if days > LAST_DAY {
        return format!("{us} us");
    }
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

/// How long ago something was, in its largest unit.
pub(crate) fn show_ago(us: u64) -> String {
    let seconds = now_us().saturating_sub(us) / 1_000_000;
    match seconds {
        0..120 => format!("{seconds}s ago"),
        120..7_200 => format!("{}m ago", seconds / 60),
        7_200..172_800 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / DAY_S),
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from March, so that the leap day comes
/// last, in cycles of 400 years and 146,097 days.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let (cycle, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    cycle * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

/// The date of a day since 1970-01-01; the inverse of [`days_of`].
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (cycle, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (cycle * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in ["", "s", "1", "1w", "-1s", "1.5h", "99999999999999999d", "1ü"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2026-11-03T10:00:00Z", 1_793_700_000),
            ("9999-12-31T00:00:00Z", 253_402_214_400),
        ] {
            assert_eq!(parse_moment(text), Ok(seconds * 1_000_000));
            assert_eq!(show(seconds * 1_000_000), text.replace('Z', ".000Z"));
        }
        assert_eq!(show(u64::MAX), format!("{} us", u64::MAX));
        for text in ["2026-02-29T00:00:00Z", "1969-12-31T23:59:59Z", "2026-1-1T0:0:0Z", "2026-11-03T10:00:00", "now"] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
        assert!(parse_moment("1h").unwrap() < now_us());
    }

    #[test]
    fn instants_have_fractions_and_offsets() {
        let noon = 1_793_707_200_000_000;
        for (text, us) in [
            ("2026-11-03T12:00:00Z", noon),
            ("2026-11-03T12:00:00.25Z", noon + 250_000),
            ("2026-11-03T14:00:00.000001999+0200", noon + 1),
            ("2026-11-03T06:30:00-05:30", noon),
        ] {
            assert_eq!(parse_instant(text), Some(us), "{text}");
        }
        for text in
            ["", "2026-11-03", "2026-11-03T12:00:00", "2026-11-03T12:00:00.Z", "2026-11-03T12:00:00+99:00", "ü+1"]
        {
            assert_eq!(parse_instant(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_is_found_again() {
        for days in 0..=LAST_DAY {
            let (year, month, day) = civil(days);
            assert_eq!(days_of(year, month, day), days);
        }
    }
}
