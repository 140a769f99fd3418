//! Unique names looked up without hashing: a sorted permutation, safe against chosen collisions.

use super::cursor::reserved;
use crate::error::Result;

/// Positions of a list in the order of their names.
#[derive(Debug, Default)]
pub(super) struct Names(Box<[u32]>);

impl Names {
    /// Sorts the names of `items`; the inner `Err` holds the position of the second of two equal
    /// ones.
    pub(super) fn new<T>(items: &[T], name: impl Fn(&T) -> &str) -> Result<Result<Self, usize>> {
        let count = u32::try_from(items.len()).expect("limits keep counts far below 2^32");
        let mut order: Vec<u32> = reserved(items.len())?;
        order.extend(0..count);
        // Of equal names the later one comes second. A stable sort would need memory of its own.
        let name_of = |i: u32| name(&items[i as usize]);
        order.sort_unstable_by(|&a, &b| name_of(a).cmp(name_of(b)).then(a.cmp(&b)));
        let twin = order
            .windows(2)
            .find(|pair| name_of(pair[0]) == name_of(pair[1]));
        Ok(match twin {
            Some(pair) => Err(pair[1] as usize),
            None => Ok(Self(order.into())),
        })
    }

    /// The position of the item called `wanted` in the `items` given to `new`.
    pub(super) fn find<T>(
        &self,
        items: &[T],
        wanted: &str,
        name: impl Fn(&T) -> &str,
    ) -> Option<usize> {
        let found = self
            .0
            .binary_search_by(|&i| name(&items[i as usize]).cmp(wanted))
            .ok()?;
        Some(self.0[found] as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_name_and_the_second_twin() {
        let items = ["b", "a", "c"];
        let names = Names::new(&items, |s| s).unwrap().unwrap();
        for (i, item) in items.iter().enumerate() {
            assert_eq!(names.find(&items, item, |s| s), Some(i));
        }
        assert_eq!(names.find(&items, "d", |s| s), None);
        assert_eq!(Names::new(&["x", "y", "x"], |s| s).unwrap().unwrap_err(), 2);
    }
}
