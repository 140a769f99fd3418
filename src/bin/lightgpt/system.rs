//! What the operating system says about the machine: read from the files of Linux; elsewhere the
//! answers are `None` or empty.

use std::fs;

/// A cache of the first CPU.
#[derive(Debug, PartialEq, Eq)]
pub struct Cache {
    pub level: u32,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    pub bytes: u64,
    /// CPUs that share it, such as `0-1`.
    pub cpus: String,
}

/// The CPU's name.
pub fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().into())
}

/// The caches of the first CPU.
pub fn caches() -> Vec<Cache> {
    let cache = |index: u32| {
        let folder = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
        let read = |name: &str| {
            let text = fs::read_to_string(format!("{folder}/{name}")).ok()?;
            Some(text.trim().to_string())
        };
        Some(Cache {
            level: read("level")?.parse().ok()?,
            kind: read("type")?,
            bytes: parse_size(&read("size")?)?,
            cpus: read("shared_cpu_list")?,
        })
    };
    (0..).map_while(cache).collect()
}

/// `266240K` in bytes.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix('M') {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        },
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// CPUs' worth of time that the control group may use; `None`: no limit is known.
pub fn quota() -> Option<f64> {
    let ratio = |quota: &str, period: &str| {
        let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
        (quota > 0.0 && period > 0.0).then_some(quota / period)
    };
    if let Some(text) = group_file("", "cpu.max") {
        let (quota, period) = text.trim().split_once(' ')?;
        return ratio(quota, period);
    }
    let quota = group_file("cpu", "cpu.cfs_quota_us")?;
    let period = group_file("cpu", "cpu.cfs_period_us")?;
    ratio(quota.trim(), period.trim())
}

/// Memory of this process that it shares with nobody, in bytes: what it allocated, without the
/// files that it maps.
pub fn private_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("RssAnon:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// A file of this process's control group; `controller` is empty for version 2. In a container the
/// group's folder is often the root of what can be seen.
fn group_file(controller: &str, name: &str) -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        controllers
            .split(',')
            .any(|c| c == controller)
            .then_some(path)
    })?;
    let root = format!("/sys/fs/cgroup/{controller}");
    let read = |path: &str| fs::read_to_string(format!("{root}{path}/{name}")).ok();
    read(group).or_else(|| read(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("266240K"), Some(260 << 20));
        assert_eq!(parse_size("2M"), Some(2 << 20));
        assert_eq!(parse_size("512"), Some(512));
        assert_eq!(parse_size("x"), None);
    }
}
