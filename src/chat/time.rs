//! Dates and times as `strftime` writes them, in English: a template may put the day into a prompt.

use super::fault::{Fault, fault};

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;
const DAYS: &str = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday";
const MONTHS: &str = "January February March April May June July August September October November \
                      December";

/// A second of the proleptic Gregorian calendar.
struct Moment {
    year: i64,
    /// From 1.
    month: i64,
    day: i64,
    /// Of the week, Sunday is 0.
    weekday: i64,
    /// Of the year, from 1.
    yearday: i64,
    /// Of the day.
    second: i64,
}

impl Moment {
    fn new(now: i64) -> Self {
        let (days, second) = (now.div_euclid(DAY), now.rem_euclid(DAY));
        // Years that begin in March have their leap day at the end; 400 of them have 146,097 days.
        let from_march = days + 719_468;
        let (era, day) = (
            from_march.div_euclid(146_097),
            from_march.rem_euclid(146_097),
        );
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let yearday = day - (365 * year + year / 4 - year / 100);
        let month = (5 * yearday + 2) / 153;
        let is_next = month >= 10;
        let year = year + 400 * era + i64::from(is_next);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        Self {
            year,
            month: if is_next { month - 9 } else { month + 3 },
            day: yearday - (153 * month + 2) / 5 + 1,
            weekday: (days + 4).rem_euclid(7),
            yearday: if is_next {
                yearday - 305
            } else {
                yearday + 60 + i64::from(is_leap)
            },
            second,
        }
    }
}

/// `now` (seconds since 1970) as `strftime` writes it in the C locale.
pub(super) fn format(now: i64, format: &str) -> Result<String, Fault> {
    // About the years that a calendar is good for.
    let moment = Moment::new(now.clamp(-62_135_596_800, 253_402_300_799));
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut kind = letters.next();
        let is_bare = kind == Some('-');
        if is_bare {
            kind = letters.next();
        }
        let field = kind.and_then(|kind| field(&moment, kind, is_bare));
        let unknown = || fault!("strftime_now does not know '%{}'", kind.unwrap_or(' '));
        text.push_str(&field.ok_or_else(unknown)?);
    }
    Ok(text)
}

fn field(moment: &Moment, kind: char, is_bare: bool) -> Option<String> {
    let number = |number: i64, width: usize| match is_bare {
        true => number.to_string(),
        false => format!("{number:0width$}"),
    };
    let day = DAYS.split(' ').nth(moment.weekday as usize)?;
    let month = MONTHS.split(' ').nth(moment.month as usize - 1)?;
    let (hour, minute, second) = (
        moment.second / 3600,
        moment.second / 60 % 60,
        moment.second % 60,
    );
    Some(match kind {
        'a' => day[..3].into(),
        'A' => day.into(),
        'b' | 'h' => month[..3].into(),
        'B' => month.into(),
        'd' => number(moment.day, 2),
        'e' => format!("{:2}", moment.day),
        'F' => format!("{}-{:02}-{:02}", moment.year, moment.month, moment.day),
        'H' => number(hour, 2),
        'I' => number((hour + 11) % 12 + 1, 2),
        'j' => number(moment.yearday, 3),
        'm' => number(moment.month, 2),
        'M' => number(minute, 2),
        'p' => (if hour < 12 { "AM" } else { "PM" }).into(),
        'S' => number(second, 2),
        'T' => format!("{hour:02}:{minute:02}:{second:02}"),
        'y' => number(moment.year % 100, 2),
        'Y' => moment.year.to_string(),
        // The moment has no time zone.
        'z' | 'Z' => String::new(),
        '%' => "%".into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::format;

    #[test]
    fn moments_are_written_as_strftime_writes_them() {
        let of = |now: i64, text: &str| format(now, text).expect("all fields are known");
        // 2025-01-29 12:00:00, a Wednesday.
        let now = 1_738_152_000;
        assert_eq!(of(now, "%Y-%m-%d %H:%M:%S"), "2025-01-29 12:00:00");
        let long = "29 Jan 2025, Wednesday, 29/1 12PM";
        assert_eq!(of(now, "%d %b %Y, %A, %-d/%-m %I%p"), long);
        assert_eq!(of(now, "%j %y %B %a %%"), "029 25 January Wed %");
        // Leap days, and the ends of years.
        assert_eq!(of(951_782_400, "%F %j"), "2000-02-29 060");
        assert_eq!(of(951_868_800, "%F %j"), "2000-03-01 061");
        assert_eq!(of(-1, "%F %T %j"), "1969-12-31 23:59:59 365");
        assert_eq!(of(1_735_603_200, "%F %j"), "2024-12-31 366");
        assert_eq!(of(i64::MAX, "%Y"), "9999");
        assert!(format(now, "%Q").is_err());
    }
}
