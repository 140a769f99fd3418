//! How many threads a team has by default: the physical cores that this process may use.

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
