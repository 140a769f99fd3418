//! Stop strings: text that ends a generation, wherever tokens cut it.
//!
//! Text that may be the start of a stop string is held back until it is known not to be one, so
//! nothing of a stop string is ever shown, and nothing else is lost.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// The most stop strings of a generation.
pub const STOPS_MAX: usize = 64;
/// The longest stop string in bytes.
pub const STOP_BYTES_MAX: usize = 1024;

/// Finds stop strings in text that comes in pieces.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    /// Looks for any of `stops`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if one is empty or too long, or if there are too many.
    pub fn new(stops: &[String]) -> Result<Self> {
        let refuse =
            |message: String| Err(Error::new(Code::InvalidArgument, "options.stops", message));
        if stops.len() > STOPS_MAX {
            return refuse(format!(
                "expected at most {STOPS_MAX} strings, found {}",
                stops.len()
            ));
        }
        let bad = stops
            .iter()
            .position(|s| s.is_empty() || s.len() > STOP_BYTES_MAX);
        if let Some(i) = bad {
            let found = stops[i].len();
            return refuse(format!(
                "string {i}: expected 1 to {STOP_BYTES_MAX} bytes, found {found}"
            ));
        }
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        Ok(Self {
            stops: stops.to_vec(),
            held: String::with_capacity(2 * longest + 256),
        })
    }

    /// Whether it is one that text can lead to.
    pub fn is_sound(&self) -> bool {
        Self::new(&self.stops).is_ok() && self.held.len() < STOP_BYTES_MAX
    }

    /// Takes the next piece in `text` and leaves there what may be shown. Whether a stop string has
    /// come: the first to be complete ends the text, and it is not shown.
    pub fn push(&mut self, text: &mut String) -> bool {
        if self.stops.is_empty() {
            return false;
        }
        self.held.push_str(text);
        text.clear();
        let first = first_stop(&self.stops, &self.held);
        let shown = first.unwrap_or_else(|| self.held.len() - self.held_back());
        text.push_str(&self.held[..shown]);
        self.held.drain(..shown);
        if first.is_some() {
            self.held.clear();
        }
        first.is_some()
    }

    /// Appends what is held back to `text`: no more will come.
    pub fn finish(&mut self, text: &mut String) {
        text.push_str(&self.held);
        self.held.clear();
    }

    /// Bytes at the end of `held` that may be the start of a stop string.
    fn held_back(&self) -> usize {
        let held = self.held.as_bytes();
        let starts = |stop: &String| {
            let longest = held.len().min(stop.len() - 1);
            (1..=longest)
                .rev()
                .find(|&n| held.ends_with(&stop.as_bytes()[..n]))
                .unwrap_or(0)
        };
        self.stops.iter().map(starts).max().unwrap_or(0)
    }
}

/// Where the stop string begins that is complete first; of those that end together, the longest.
fn first_stop(stops: &[String], text: &str) -> Option<usize> {
    let found = |stop: &String| {
        text.find(stop.as_str())
            .map(|start| (start + stop.len(), start))
    };
    stops.iter().filter_map(found).min().map(|(_, start)| start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn stops(stops: &[&str]) -> Stops {
        Stops::new(&stops.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    /// What is shown of `text` when it comes in the pieces that end at `cuts`, and whether a stop
    /// string came.
    fn shown(stops: &mut Stops, text: &str, cuts: &[usize]) -> (String, bool) {
        let (mut shown, mut start) = (String::new(), 0);
        for &end in cuts.iter().chain([&text.len()]) {
            let mut piece = text[start..end].to_string();
            start = end;
            let stopped = stops.push(&mut piece);
            shown.push_str(&piece);
            if stopped {
                return (shown, true);
            }
        }
        stops.finish(&mut shown);
        (shown, false)
    }

    #[test]
    fn what_may_begin_a_stop_string_waits() {
        let mut s = stops(&["</end>", "<|x|>"]);
        let mut push = |text: &str| {
            let mut text = text.to_string();
            (s.push(&mut text), text)
        };
        assert_eq!(push("a<"), (false, "a".into()));
        assert_eq!(push("/e"), (false, "".into()));
        assert_eq!(push("x<"), (false, "</ex".into()));
        assert_eq!(push("|x|>more"), (true, "".into()));
    }

    #[test]
    fn the_first_to_be_complete_ends_the_text() {
        assert_eq!(
            shown(&mut stops(&["dd", "bc"]), "abcdd", &[]),
            ("a".into(), true)
        );
        assert_eq!(
            shown(&mut stops(&["abcd", "bc"]), "abcd", &[2]),
            ("a".into(), true)
        );
        assert_eq!(
            shown(&mut stops(&["aab"]), "aaab", &[1, 2, 3]),
            ("a".into(), true)
        );
        assert_eq!(shown(&mut stops(&[]), "abc", &[1]), ("abc".into(), false));
        assert_eq!(
            shown(&mut stops(&["é!"]), "né?é", &[3]),
            ("né?é".into(), false)
        );
    }

    /// Any cut shows the same: the text up to the first stop string, or all of it.
    #[test]
    fn cuts_do_not_show() {
        let alphabet = ['a', 'b', 'é', '€', '𝄞'];
        for step in 0..4000 {
            let random = Random { seed: 11, step };
            let mut draw = 0;
            let mut below = |n: u64| {
                draw += 1;
                random.bits(draw) % n
            };
            let mut word = |len: u64| -> String {
                (0..len)
                    .map(|_| alphabet[below(alphabet.len() as u64) as usize])
                    .collect()
            };
            let wanted: Vec<String> = (1..=3).map(&mut word).collect();
            let text = word(20);
            let ends = |end: &usize| wanted.iter().any(|w| text[..*end].ends_with(w.as_str()));
            let end = (1..=text.len())
                .filter(|&end| text.is_char_boundary(end))
                .find(ends);
            let first = end.and_then(|end| {
                let starts = |w: &String| text[..end].ends_with(w.as_str()).then(|| end - w.len());
                wanted.iter().filter_map(starts).min()
            });
            let expected = (
                text[..first.unwrap_or(text.len())].to_string(),
                first.is_some(),
            );
            let cuts: Vec<usize> = text
                .char_indices()
                .map(|c| c.0)
                .filter(|_| below(2) == 0)
                .collect();
            assert_eq!(
                shown(&mut Stops::new(&wanted).unwrap(), &text, &cuts),
                expected
            );
        }
    }

    #[test]
    fn unusable_stop_strings_are_refused() {
        for bad in [vec![String::new()], vec!["x".repeat(STOP_BYTES_MAX + 1)]] {
            assert_eq!(Stops::new(&bad).unwrap_err().code(), Code::InvalidArgument);
        }
        assert!(Stops::new(&vec!["x".to_string(); STOPS_MAX + 1]).is_err());
    }
}
