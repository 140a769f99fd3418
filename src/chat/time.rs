//! Dates and times as `strftime` writes them, in English: a template may put the day into a prompt.

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A second of the proleptic Gregorian calendar.
struct Moment {
    year: i64,
    /// From 1.
    month: i64,
    day: i64,
    /// Of the week, Sunday is 0.
    weekday: i64,
    /// Of the year, from 0.
    yearday: i64,
    hour: i64,
    minute: i64,
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
        let january = Self::days_before(year);
        Self {
            year,
            month: if is_next { month - 9 } else { month + 3 },
            day: yearday - (153 * month + 2) / 5 + 1,
            weekday: (days + 4).rem_euclid(7),
            yearday: days - january,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }

    /// Days from 1970 to the first of January of the year.
    fn days_before(year: i64) -> i64 {
        let last = year - 1;
        365 * (year - 1970) + (last.div_euclid(4) - last.div_euclid(100) + last.div_euclid(400))
            - 477
    }

    /// The number of the week by ISO 8601, and the year that the week belongs to.
    fn iso_week(&self) -> (i64, i64) {
        let weekday = (self.weekday + 6) % 7;
        let week = (self.yearday - weekday + 10) / 7;
        let weeks = |year: i64| {
            let first = (Self::days_before(year) + 3).rem_euclid(7);
            let is_leap = Self::days_before(year + 1) - Self::days_before(year) == 366;
            if first == 3 || (first == 2 && is_leap) {
                53
            } else {
                52
            }
        };
        match week {
            0 => (self.year - 1, weeks(self.year - 1)),
            53 if weeks(self.year) == 52 => (self.year + 1, 1),
            week => (self.year, week),
        }
    }
}

/// `now` (seconds since 1970) as `strftime` writes it in the C locale.
pub(super) fn format(now: i64, format: &str) -> String {
    // About the years that a calendar is good for.
    let moment = Moment::new(now.clamp(-62_135_596_800, 253_402_300_799));
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let Some(mut kind) = letters.next() else {
            text.push('%');
            break;
        };
        let mut pad = None;
        if matches!(kind, '-' | '_' | '0') {
            pad = Some(kind);
            let Some(next) = letters.next() else {
                text.push('%');
                text.push(kind);
                break;
            };
            kind = next;
        }
        text.push_str(&field(&moment, kind, pad, now));
    }
    text
}

fn field(moment: &Moment, kind: char, pad: Option<char>, now: i64) -> String {
    let number = |number: i64, width: usize, own: char| match pad.unwrap_or(own) {
        '-' => number.to_string(),
        '_' => format!("{number:width$}"),
        _ => format!("{number:0width$}"),
    };
    let twelve = (moment.hour + 11) % 12 + 1;
    let day = DAYS[moment.weekday as usize];
    let month = MONTHS[moment.month as usize - 1];
    let of = |text: &str| format_moment(moment, text, now);
    match kind {
        'a' => day[..3].into(),
        'A' => day.into(),
        'b' | 'h' => month[..3].into(),
        'B' => month.into(),
        'c' => of("%a %b %e %H:%M:%S %Y"),
        'C' => number(moment.year / 100, 2, '0'),
        'd' => number(moment.day, 2, '0'),
        'D' | 'x' => of("%m/%d/%y"),
        'e' => number(moment.day, 2, '_'),
        'f' => "000000".into(),
        'F' => of("%Y-%m-%d"),
        'g' => number(moment.iso_week().0 % 100, 2, '0'),
        'G' => moment.iso_week().0.to_string(),
        'H' => number(moment.hour, 2, '0'),
        'I' => number(twelve, 2, '0'),
        'j' => number(moment.yearday + 1, 3, '0'),
        'k' => number(moment.hour, 2, '_'),
        'l' => number(twelve, 2, '_'),
        'm' => number(moment.month, 2, '0'),
        'M' => number(moment.minute, 2, '0'),
        'n' => "\n".into(),
        'p' => (if moment.hour < 12 { "AM" } else { "PM" }).into(),
        'P' => (if moment.hour < 12 { "am" } else { "pm" }).into(),
        'r' => of("%I:%M:%S %p"),
        'R' => of("%H:%M"),
        's' => now.to_string(),
        'S' => number(moment.second, 2, '0'),
        't' => "\t".into(),
        'T' | 'X' => of("%H:%M:%S"),
        'u' => ((moment.weekday + 6) % 7 + 1).to_string(),
        'U' => number((moment.yearday + 7 - moment.weekday) / 7, 2, '0'),
        'V' => number(moment.iso_week().1, 2, '0'),
        'w' => moment.weekday.to_string(),
        'W' => number((moment.yearday + 7 - (moment.weekday + 6) % 7) / 7, 2, '0'),
        'y' => number(moment.year % 100, 2, '0'),
        'Y' => moment.year.to_string(),
        // The moment has no time zone.
        'z' | 'Z' => String::new(),
        '%' => "%".into(),
        other => format!("%{other}"),
    }
}

/// A format that stands for others.
fn format_moment(moment: &Moment, format: &str, now: i64) -> String {
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '%' => {
                let kind = letters.next().expect("formats of this file are whole");
                text.push_str(&field(moment, kind, None, now));
            }
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::format;

    #[test]
    fn moments_are_written_as_strftime_writes_them() {
        // 2025-01-29 12:00:00, a Wednesday.
        let now = 1_738_152_000;
        assert_eq!(format(now, "%Y-%m-%d %H:%M:%S"), "2025-01-29 12:00:00");
        assert_eq!(
            format(now, "%d %b %Y, %A, %-d/%-m %I%p"),
            "29 Jan 2025, Wednesday, 29/1 12PM"
        );
        assert_eq!(
            format(now, "%j %U %W %V %G %u %w %y %%"),
            "029 04 04 05 2025 3 3 25 %"
        );
        // Leap days, and the ends of years.
        assert_eq!(format(951_782_400, "%F %j"), "2000-02-29 060");
        assert_eq!(format(-1, "%F %T"), "1969-12-31 23:59:59");
        assert_eq!(format(1_609_459_200, "%F %G-W%V"), "2021-01-01 2020-W53");
        assert_eq!(format(1_735_603_200, "%F %G-W%V"), "2024-12-31 2025-W01");
        assert_eq!(format(i64::MAX, "%Y"), "9999");
    }
}
