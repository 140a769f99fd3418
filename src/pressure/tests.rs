use std::fs;
use std::sync::atomic::AtomicUsize;

use super::*;

/// A folder that looks like a system.
struct Fake(PathBuf);

impl Fake {
    fn new(files: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lightgpt-pressure-{}-{number}", std::process::id());
        let fake = Self(std::env::temp_dir().join(name));
        files.iter().for_each(|(path, text)| fake.write(path, text));
        fake
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn look(&self) -> Level {
        Watch::new(&self.0).level()
    }

    fn cap(&self) -> Option<u64> {
        Watch::new(&self.0).cap()
    }

    /// Total, available and limit.
    fn memory(&self) -> [Option<u64>; 3] {
        let memory = Watch::new(&self.0).memory();
        [memory.total, memory.available, memory.limit]
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const MEMINFO: &str = "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    500 kB\n";
const CALM: &str = "some avg10=9.99 avg60=80.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=99 x\n";

#[test]
fn without_files_there_is_enough() {
    let fake = Fake::new(&[]);
    assert_eq!((fake.look(), fake.cap()), (Level::Enough, None));
    assert_eq!(fake.memory(), [None; 3]);
    let blind = Watch::blind();
    assert_eq!((blind.level(), blind.cap()), (Level::Enough, None));
}

#[test]
fn the_machine_is_short_when_little_is_available() {
    let fake = Fake::new(&[("proc/meminfo", MEMINFO)]);
    assert_eq!(
        (fake.look(), fake.cap()),
        (Level::Enough, Some(10_240 * 80))
    );
    for (available, level) in [
        (101, Level::Enough),
        (100, Level::Short),
        (51, Level::Short),
        (50, Level::VeryShort),
        (0, Level::VeryShort),
    ] {
        let text = format!("MemTotal: 1000 kB\nMemAvailable: {available} kB\n");
        fake.write("proc/meminfo", text);
        assert_eq!(fake.look(), level, "{available}");
    }
}

#[test]
fn stalls_of_the_group_or_else_the_machine_count() {
    let full = "MemTotal: 1000 kB\nMemAvailable: 99 kB\n";
    for path in ["proc/pressure/memory", "sys/fs/cgroup/a/memory.pressure"] {
        let fake = Fake::new(&[("proc/self/cgroup", "0::/a\n"), (path, CALM)]);
        assert_eq!(fake.look(), Level::Enough);
        for (some, all, level) in [
            ("10.00", "9.99", Level::Short),
            ("55.5", "10.0", Level::VeryShort),
            ("100.00", "100.00", Level::VeryShort),
        ] {
            let text = format!("some avg10={some} avg60=0.00\nfull avg10={all} avg60=0.00\n");
            fake.write(path, text);
            fake.write("proc/meminfo", full);
            assert_eq!(fake.look(), level, "{path} {some} {all}");
            // Stalls alone may be those of files that are read again.
            fake.write("proc/meminfo", MEMINFO);
            assert_eq!(fake.look(), Level::Short, "{path} {some} {all}");
        }
        // Neighbours do not count where the group tells of its own.
        fake.write("sys/fs/cgroup/a/memory.pressure", CALM);
        assert_eq!(fake.look(), Level::Enough);
    }
}

#[test]
fn the_nearest_limit_of_all_groups_around_counts() {
    let fake = Fake::new(&[
        ("proc/meminfo", MEMINFO),
        ("proc/self/cgroup", "0::/a/b\n"),
        ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ("sys/fs/cgroup/a/b/memory.current", "999999\n"),
        ("sys/fs/cgroup/a/memory.max", "100000\n"),
        ("sys/fs/cgroup/a/memory.high", "90000\n"),
        ("sys/fs/cgroup/a/memory.current", "81000\n"),
        (
            "sys/fs/cgroup/a/memory.stat",
            "anon 5\ninactive_file 9000\nactive_file 1\n",
        ),
    ]);
    assert_eq!((fake.look(), fake.cap()), (Level::Enough, Some(900 * 80)));
    let memory = [1_024_000, 512_000, 90_000].map(Some);
    assert_eq!(fake.memory(), memory);
    fake.write(
        "sys/fs/cgroup/a/memory.stat",
        "active_file 8000\nfile 70000\n",
    );
    assert_eq!(fake.look(), Level::Short);
    fake.write("sys/fs/cgroup/a/memory.stat", "");
    assert_eq!(fake.look(), Level::VeryShort);
}

#[test]
fn version_1_has_other_names() {
    let fake = Fake::new(&[
        (
            "proc/self/cgroup",
            "5:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/\n",
        ),
        // Only the root can be seen in a container.
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "950\n"),
        (
            "sys/fs/cgroup/memory/memory.stat",
            "inactive_file 900\ntotal_inactive_file 100\ntotal_active_file 50\n",
        ),
    ]);
    assert_eq!((fake.look(), fake.cap()), (Level::Short, Some(800)));
    fake.write("proc/meminfo", MEMINFO);
    assert_eq!(fake.memory()[2], Some(1000));
    fake.write(
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
        "9223372036854771712",
    );
    assert_eq!(fake.look(), Level::Enough);
    assert_eq!(fake.memory()[2], None);
}

#[test]
fn nonsense_says_nothing() {
    let long = format!("{}\nsome avg10=99.0\n", "x".repeat(1 << 20));
    let fake = Fake::new(&[
        (
            "proc/meminfo",
            "MemTotal: 99999999999999999999 kB\nMemAvailable: 1 kB\n",
        ),
        (
            "proc/self/cgroup",
            "::\n0\n0::/../../etc\n\u{0}:memory:/../x\n0::/a\n",
        ),
        ("proc/pressure/memory", &long),
        ("sys/fs/cgroup/memory.max", "0\n"),
        ("sys/fs/cgroup/memory.current", "10\n"),
        ("sys/fs/cgroup/a/memory.max", "-5\n"),
        ("etc/memory.max", "1\n"),
        ("etc/memory.current", "1\n"),
    ]);
    assert_eq!((fake.look(), fake.cap()), (Level::Enough, None));
    for text in [
        "some avg10=NaN",
        "some avg10=-50",
        "some avg10=1e9",
        "full",
        "some  ",
        "",
    ] {
        fake.write("proc/pressure/memory", text);
        assert_eq!(fake.look(), Level::Enough, "{text}");
    }
    fake.write("proc/pressure/memory", [0xff, 0xfe, b'\n']);
    fake.write(
        "proc/meminfo",
        "MemTotal: 18014398509481984 kB\nMemAvailable: 0 kB\n",
    );
    assert_eq!((fake.look(), fake.cap()), (Level::Enough, None));
}

#[test]
fn looks_are_rare_and_rises_are_counted() {
    let fake = Fake::new(&[("proc/meminfo", MEMINFO)]);
    let watch = Watch::new(&fake.0);
    assert_eq!((watch.level(), watch.events()), (Level::Enough, 0));
    fake.write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 60 kB\n");
    assert_eq!(watch.last(), Level::Enough);
    std::thread::sleep(PERIOD);
    assert_eq!((watch.level(), watch.events()), (Level::Short, 1));
    // Within the period nothing is read.
    fake.write("proc/meminfo", MEMINFO);
    assert_eq!(watch.last(), Level::Short);
    std::thread::sleep(PERIOD);
    assert_eq!((watch.level(), watch.events()), (Level::Enough, 1));
}

#[test]
fn what_is_left_shrinks() {
    let levels = [Level::Enough, Level::Short, Level::VeryShort];
    assert_eq!(levels.map(|level| level.share(10)), [10, 5, 0]);
    assert!(levels.is_sorted());
}
