//! How short memory is: what Linux says of the machine and of the control groups of this process.
//!
//! Nothing here runs by itself. Who does long work asks [`Watch::level`] now and then, which looks
//! at a few small files at most every 100 ms. A file that is absent, too long or makes no sense
//! says nothing; elsewhere than on Linux none does.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, TryLockError};
use std::time::{Duration, Instant};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(100);
/// What is read of a file at most.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Groups inside groups.
const DEPTH_MAX: usize = 32;
/// Per cent of what is allowed that memory takes at most by default, and from which on a group is
/// short of it, and very short.
const GROUP_PERCENT: [u64; 2] = [80, 90];
/// The same for the machine, where most of it may be others'.
const MACHINE_PERCENT: [u64; 2] = [90, 95];
/// Per cent of the time of the last 10 s in which tasks waited for memory: some of them, or all.
const STALLED_PERCENT: f64 = 10.0;

/// How short memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// There is enough.
    #[default]
    Enough,
    /// What can be done without should go.
    Short,
    /// All that can be done without should go.
    VeryShort,
}

impl Level {
    /// What is left of `most` things of which one may have many: all, half or none.
    pub fn share(self, most: u64) -> u64 {
        match self {
            Self::Enough => most,
            Self::Short => most / 2,
            Self::VeryShort => 0,
        }
    }

    fn of_number(number: u8) -> Self {
        match number {
            0 => Self::Enough,
            1 => Self::Short,
            _ => Self::VeryShort,
        }
    }
}

/// Looks at the files of a system.
#[derive(Debug)]
pub struct Watch {
    /// `None`: nothing is looked at.
    root: Option<PathBuf>,
    looked: Mutex<Option<Instant>>,
    level: AtomicU8,
    events: AtomicU64,
}

/// Memory in bytes, as far as the system tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// What the machine has.
    pub total: Option<u64>,
    /// What could be used of it without swapping.
    pub available: Option<u64>,
    /// The least that a control group around this process may have, if that is less than the machine
    /// has.
    pub limit: Option<u64>,
}

/// Memory in bytes, of the machine or a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    used: u64,
    limit: u64,
}

/// How a version of control groups calls things.
struct Names {
    folder: &'static str,
    current: &'static str,
    limits: &'static [&'static str],
    /// Of `memory.stat`: files that could be read again.
    files: [&'static str; 2],
}

const VERSION_1: Names = Names {
    folder: "sys/fs/cgroup/memory",
    current: "memory.usage_in_bytes",
    limits: &["memory.limit_in_bytes"],
    files: ["total_inactive_file", "total_active_file"],
};

const VERSION_2: Names = Names {
    folder: "sys/fs/cgroup",
    current: "memory.current",
    limits: &["memory.max", "memory.high"],
    files: ["inactive_file", "active_file"],
};

impl Watch {
    /// Watches the system whose `proc` and `sys` are in the folder `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: Some(root.into()),
            ..Self::blind()
        }
    }

    /// Sees nothing: there is always enough.
    pub fn blind() -> Self {
        Self {
            root: None,
            looked: Mutex::new(None),
            level: AtomicU8::new(0),
            events: AtomicU64::new(0),
        }
    }

    /// The one that watches this machine for everyone.
    pub fn machine() -> Arc<Self> {
        static MACHINE: OnceLock<Arc<Watch>> = OnceLock::new();
        MACHINE.get_or_init(|| Arc::new(Self::new("/"))).clone()
    }

    /// How short memory is, as of a look in the last 100 ms.
    pub fn level(&self) -> Level {
        let mut looked = match self.looked.try_lock() {
            Ok(looked) => looked,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            // Another thread looks.
            Err(TryLockError::WouldBlock) => return self.last(),
        };
        if looked.is_none_or(|looked| looked.elapsed() >= PERIOD) {
            let (before, level) = (self.last(), self.look());
            self.level.store(level as u8, Ordering::Relaxed);
            if level > before {
                self.events.fetch_add(1, Ordering::Relaxed);
            }
            *looked = Some(Instant::now());
        }
        self.last()
    }

    /// How short memory was at the last look.
    pub fn last(&self) -> Level {
        Level::of_number(self.level.load(Ordering::Relaxed))
    }

    /// How often it has become shorter.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Memory of the machine, and what this process may have of it.
    pub fn memory(&self) -> Memory {
        let Some(root) = self.root.as_deref() else {
            return Memory::default();
        };
        let machine = machine(root);
        let total = machine.map(|room| room.limit);
        let limit = groups(root).iter().filter_map(Group::limit).min();
        Memory {
            total,
            available: machine.map(|room| room.limit - room.used),
            // Version 1 says "no limit" by a huge number.
            limit: limit.filter(|&limit| total.is_none_or(|total| limit < total)),
        }
    }

    /// The bytes that memory should stay below: 80 % of the machine's or of a group's limit, whatever
    /// is less. `None` if nothing is known.
    pub fn cap(&self) -> Option<u64> {
        let memory = self.memory();
        let allowed = memory.limit.or(memory.total)?;
        Some(allowed / 100 * GROUP_PERCENT[0])
    }

    fn look(&self) -> Level {
        let Some(root) = self.root.as_deref() else {
            return Level::Enough;
        };
        let groups = groups(root);
        let machine = machine(root).map(|room| room.level(MACHINE_PERCENT));
        let rooms = groups.iter().filter_map(Group::room);
        let full = rooms.map(|room| room.level(GROUP_PERCENT)).max();
        let room = machine.max(full).unwrap_or_default();
        // Of a group's own, the innermost; the machine's may be those of others.
        let own = groups.iter().map(|group| group.path("memory.pressure"));
        let stalls = own.chain([root.join("proc/pressure/memory")]);
        let stalled = stalls.filter_map(|path| stall_level(&text(&path)?)).next();
        // Where nothing is full, files are read again and again, as the weights of a model larger
        // than memory are: to serve one after the other would make that worse.
        let most = match room {
            Level::Enough => Level::Short,
            _ => Level::VeryShort,
        };
        room.max(stalled.unwrap_or_default().min(most))
    }
}

impl Room {
    fn level(self, percent: [u64; 2]) -> Level {
        let is_above = |percent: u64| {
            u128::from(self.used) * 100 >= u128::from(self.limit) * u128::from(percent)
        };
        match percent.map(is_above) {
            [_, true] => Level::VeryShort,
            [true, _] => Level::Short,
            _ => Level::Enough,
        }
    }
}

/// A control group.
struct Group {
    folder: PathBuf,
    names: &'static Names,
}

impl Group {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn limit(&self) -> Option<u64> {
        let limits = self.names.limits.iter();
        let limits = limits.filter_map(|name| number(&text(&self.path(name))?));
        limits.filter(|&limit| limit > 0).min()
    }

    /// What it has, without files that could be read again; `None` without a limit.
    fn room(&self) -> Option<Room> {
        let limit = self.limit()?;
        let current = number(&text(&self.path(self.names.current))?)?;
        let stat = text(&self.path("memory.stat")).unwrap_or_default();
        let files = self.names.files.iter();
        let files = files.map(|name| field(&stat, name).unwrap_or(0));
        let used = current.saturating_sub(files.fold(0, u64::saturating_add));
        Some(Room { used, limit })
    }
}

/// The groups of this process that tell of memory, the innermost first. In a container the folder of
/// its group is often the root of what can be seen.
fn groups(root: &Path) -> Vec<Group> {
    let list = text(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mut groups = Vec::new();
    for line in list.lines() {
        if groups.len() > DEPTH_MAX {
            break;
        }
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let names = match controllers {
            "" => &VERSION_2,
            list if list.split(',').any(|name| name == "memory") => &VERSION_1,
            _ => continue,
        };
        let folders = path.split('/').filter(|folder| !folder.is_empty());
        let folders: Vec<&str> = folders.take_while(|folder| *folder != "..").collect();
        let depth = folders.len().min(DEPTH_MAX);
        groups.extend((0..=depth).rev().map(|depth| Group {
            folder: root.join(names.folder).join(folders[..depth].join("/")),
            names,
        }));
    }
    groups
}

fn machine(root: &Path) -> Option<Room> {
    let text = text(&root.join("proc/meminfo"))?;
    let bytes = |name| field(&text, name)?.checked_mul(1024);
    let limit = bytes("MemTotal:").filter(|&limit| limit > 0)?;
    Some(Room {
        used: limit.saturating_sub(bytes("MemAvailable:")?),
        limit,
    })
}

/// What lines such as `some avg10=1.50 avg60=...` say.
fn stall_level(text: &str) -> Option<Level> {
    let share = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let mut fields = line.split_whitespace();
        let share = fields.find_map(|field| field.strip_prefix("avg10="))?;
        share
            .parse()
            .ok()
            .filter(|share| (0.0..=100.0).contains(share))
    };
    let is_much = |share: Option<f64>| share.is_some_and(|share| share >= STALLED_PERCENT);
    let (some, full) = (share("some "), share("full "));
    some.or(full)?;
    Some(match (is_much(some), is_much(full)) {
        (_, true) => Level::VeryShort,
        (true, _) => Level::Short,
        _ => Level::Enough,
    })
}

/// The number behind `name` at the begin of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let fields = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next())?
    });
    fields.map(number).next()?
}

/// `max` is no number.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
