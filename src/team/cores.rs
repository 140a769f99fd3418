//! The cores of the machine: how many threads a team has by default, and which CPUs a node has.

use crate::error::{Code, Error, Result};

/// Physical cores within the affinity mask and the control group's quota; at least 1.
pub fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    sibling_groups()
        .map_or(allowed, |cores| cores.min(allowed))
        .max(1)
}

/// Cores with at least one hardware thread in the affinity mask, as far as the system tells.
/// (`available_parallelism` has counted the mask and the quota already, but not the siblings.)
#[cfg(target_os = "linux")]
fn sibling_groups() -> Option<usize> {
    let mut cores = std::collections::BTreeSet::new();
    for cpu in super::affinity::allowed()? {
        let topology = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        let read = |name: &str| std::fs::read_to_string(format!("{topology}/{name}")).ok();
        cores.insert((read("physical_package_id")?, read("core_id")?));
    }
    Some(cores.len())
}

#[cfg(not(target_os = "linux"))]
fn sibling_groups() -> Option<usize> {
    None
}

/// The CPUs of a NUMA node that this process may use.
///
/// # Errors
/// [`Code::InvalidArgument`] if the system knows no such node, or it has no CPU for us.
pub fn node_cpus(node: usize) -> Result<Vec<usize>> {
    let cpus = cpus_of_node(node).unwrap_or_default();
    if cpus.is_empty() {
        let message = format!("the system names no CPU of node {node} that may be used");
        return Err(Error::new(Code::InvalidArgument, "node", message));
    }
    Ok(cpus)
}

#[cfg(target_os = "linux")]
fn cpus_of_node(node: usize) -> Option<Vec<usize>> {
    let path = format!("/sys/devices/system/node/node{node}/cpulist");
    let mut cpus = parse_list(&std::fs::read_to_string(path).ok()?)?;
    let allowed = super::affinity::allowed()?;
    cpus.retain(|cpu| allowed.contains(cpu));
    Some(cpus)
}

#[cfg(not(target_os = "linux"))]
fn cpus_of_node(_: usize) -> Option<Vec<usize>> {
    None
}

/// The numbers of a list as Linux writes it: "0-3,8-11".
#[cfg(target_os = "linux")]
fn parse_list(list: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        numbers.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn lists_are_ranges_and_numbers() {
        assert_eq!(parse_list("0-2,8\n"), Some(vec![0, 1, 2, 8]));
        assert_eq!(parse_list("5"), Some(vec![5]));
        assert_eq!(parse_list(""), None);
        assert_eq!(parse_list("1-x"), None);
    }
}
