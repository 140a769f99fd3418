//! Feed-forward networks of which a token takes a few.

use crate::error::Result;
use crate::ops::experts::Routing;

use super::{WIDTH_MAX, require};

/// The most experts of a layer.
const EXPERTS_MAX: usize = 1 << 12;

/// Networks of which a token takes a few, and how it chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: usize,
    /// Width inside one.
    pub hidden: usize,
    /// Width inside the network that all tokens take besides; 0: none.
    pub shared_hidden: usize,
    /// How a token chooses.
    pub routing: Routing,
    /// Whether what an expert takes is multiplied with its weight, in place of what it gives.
    pub weighs_input: bool,
}

impl Experts {
    pub(super) fn check(&self, place: impl Fn(&str) -> String) -> Result<()> {
        let range = |name: &str, value: usize, max: usize| {
            let holds = (1..=max).contains(&value);
            require(holds, || place(name), format!("1 to {max}"), value)
        };
        let routing = &self.routing;
        range("expert_count", self.count, EXPERTS_MAX)?;
        range("expert_feed_forward_length", self.hidden, WIDTH_MAX)?;
        let shared = self.shared_hidden.max(1);
        range("expert_shared_feed_forward_length", shared, WIDTH_MAX)?;
        range("expert_group_count", routing.groups, self.count)?;
        let divides = self.count.is_multiple_of(routing.groups);
        let expected = format!("a divisor of {}", self.count);
        let name = "expert_group_count";
        require(divides, || place(name), expected, routing.groups)?;
        range(
            "expert_group_used_count",
            routing.groups_used,
            routing.groups,
        )?;
        let choice = self.count / routing.groups * routing.groups_used;
        range("expert_used_count", routing.used, choice)?;
        let holds = routing.scale.is_finite() && routing.scale != 0.0;
        let name = "expert_weights_scale";
        require(
            holds,
            || place(name),
            "a finite number but 0",
            routing.scale,
        )
    }
}
