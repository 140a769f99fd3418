//! Unique names looked up without hashing: a sorted permutation, safe against chosen collisions.

/// Positions of a list in the order of their names.
#[derive(Debug, Default)]
pub(super) struct Names(Box<[u32]>);

impl Names {
    /// Sorts the names of `items`; `Err` holds the position of the second of two equal ones.
    pub(super) fn new<T>(items: &[T], name: impl Fn(&T) -> &str) -> Result<Self, usize> {
        let count = u32::try_from(items.len()).expect("limits keep counts far below 2^32");
        let mut order: Vec<u32> = (0..count).collect();
        // The sort is stable: of equal names the later one comes second.
        order.sort_by(|&a, &b| name(&items[a as usize]).cmp(name(&items[b as usize])));
        let twin = order
            .windows(2)
            .find(|pair| name(&items[pair[0] as usize]) == name(&items[pair[1] as usize]));
        match twin {
            Some(pair) => Err(pair[1] as usize),
            None => Ok(Self(order.into())),
        }
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
        let names = Names::new(&items, |s| s).unwrap();
        for (i, item) in items.iter().enumerate() {
            assert_eq!(names.find(&items, item, |s| s), Some(i));
        }
        assert_eq!(names.find(&items, "d", |s| s), None);
        assert_eq!(Names::new(&["x", "y", "x"], |s| s).unwrap_err(), 2);
    }
}
