//! The time that a sensor wrote.

/// Seconds since 1970-01-01 of `YYYY-MM-DD hh:mm:ss` or `YYYY-MM-DDThh:mm:ss` and whatever follows. A zone is not looked
/// at: the hour as it is written is the hour of the sensor's day.
pub(crate) fn seconds_of(text: &str) -> Option<i64> {
    let bytes = text.as_bytes().first_chunk::<19>()?;
    let number = |range: std::ops::Range<usize>| {
        bytes[range]
            .iter()
            .try_fold(0i64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
    };
    let marks = [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")];
    if marks.iter().any(|(at, mark)| bytes[*at] != mark[0]) || !b" T".contains(&bytes[10]) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970 in the Gregorian calendar: years begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (month * 153 + 2) / 5 + day;
    Some((days - 719_469) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_1970() {
        assert_eq!(seconds_of("1970-01-01 00:00:00"), Some(0));
        assert_eq!(seconds_of("2000-02-29T23:59:59Z"), Some(951_868_799));
        assert_eq!(seconds_of("2000-03-01 00:00:00"), Some(951_868_800));
        assert_eq!(seconds_of("2013-07-04 15:00:00.5+02:00"), Some(1_372_950_000));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in
            ["", "12:00", "2013-13-04 15:00:00", "2013-07-04x15:00:00", "2013-07-04 1a:00:00", "2013-07-04 25:00:00"]
        {
            assert_eq!(seconds_of(text), None, "{text}");
        }
    }
}
