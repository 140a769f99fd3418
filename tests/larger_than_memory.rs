//! Models larger than memory: weights are used in the mapped file, so that those which no token takes
//! are never read, and those which one took can be given back.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, clippy::unwrap_used)] // advice to the kernel; tests

#[path = "support/weights.rs"]
mod weights;

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lightgpt::control::Control;
use lightgpt::gguf::{Source, Value, Writer};
use lightgpt::model::{Model, OpenOptions};
use lightgpt::quant::Format;
use lightgpt::session::{Session, SessionOptions};
use lightgpt::team::{Team, TeamOptions};

const EXPERTS: usize = 64;
const USED: u32 = 8;
const DIM: u64 = 256;
const HIDDEN: u64 = 1024;
const VOCAB: u64 = 96;
/// Of the experts that a bias favours, every so manieth.
const FAVOURED: usize = 8;

/// What the group of a child may have: less than the model's file.
const MEMORY_MAX: u64 = 36 << 20;
/// How the child is told of the model, and of its group.
const CHILD: &str = "LIGHTGPT_TEST_CHILD";

/// Makes a model of one layer, some 50 MiB of experts; with `favours`, tokens take a few of them only.
fn make(name: &str, favours: bool) -> PathBuf {
    let mut writer = Writer::new();
    writer.set("general.architecture", "qwen3moe").unwrap();
    let keys: [(&str, Value); 11] = [
        ("block_count", 1u32.into()),
        ("context_length", 128u32.into()),
        ("embedding_length", (DIM as u32).into()),
        ("feed_forward_length", (HIDDEN as u32).into()),
        ("attention.head_count", 4u32.into()),
        ("attention.key_length", 64u32.into()),
        ("attention.value_length", 64u32.into()),
        ("attention.layer_norm_rms_epsilon", 1e-5f32.into()),
        ("expert_count", (EXPERTS as u32).into()),
        ("expert_used_count", USED.into()),
        ("expert_feed_forward_length", (HIDDEN as u32).into()),
    ];
    for (key, value) in keys {
        writer.set(&format!("qwen3moe.{key}"), value).unwrap();
    }
    if favours {
        let bias = |expert| if expert % FAVOURED == 0 { 9f32 } else { 0.0 };
        let bias: Vec<u8> = (0..EXPERTS).flat_map(|i| bias(i).to_le_bytes()).collect();
        let (name, dims) = ("blk.0.exp_probs_b.bias", [EXPERTS as u64]);
        writer.tensor(name, Format::F32, &dims, bias).unwrap();
    }
    let (gate, down) = ([DIM, HIDDEN, 64], [HIDDEN, DIM, 64]);
    let tensors: [(&str, &[u64]); 14] = [
        ("token_embd.weight", &[DIM, VOCAB]),
        ("output_norm.weight", &[DIM]),
        ("blk.0.attn_norm.weight", &[DIM]),
        ("blk.0.attn_q.weight", &[DIM, DIM]),
        ("blk.0.attn_k.weight", &[DIM, DIM]),
        ("blk.0.attn_v.weight", &[DIM, DIM]),
        ("blk.0.attn_output.weight", &[DIM, DIM]),
        ("blk.0.attn_q_norm.weight", &[64]),
        ("blk.0.attn_k_norm.weight", &[64]),
        ("blk.0.ffn_norm.weight", &[DIM]),
        ("blk.0.ffn_gate_inp.weight", &[DIM, EXPERTS as u64]),
        ("blk.0.ffn_gate_exps.weight", &gate),
        ("blk.0.ffn_up_exps.weight", &gate),
        ("blk.0.ffn_down_exps.weight", &down),
    ];
    for (seed, (name, dims)) in (1..).zip(tensors) {
        let (format, len) = (Format::F32, dims.iter().product::<u64>() as usize);
        if dims.len() == 3 {
            // Neighbours differ, that is enough.
            let some = len / EXPERTS * 5;
            let some = weights::random_weights(Format::Q8_0, some, dims[0] as usize, seed);
            let bytes = Format::Q8_0.bytes(len as u64).unwrap() as usize;
            let all: Vec<u8> = some.iter().copied().cycle().take(bytes).collect();
            writer.tensor(name, Format::Q8_0, dims, all).unwrap();
        } else if dims.len() == 1 {
            let ones = 1f32.to_le_bytes().repeat(len);
            writer.tensor(name, format, dims, ones).unwrap();
        } else {
            let values = weights::random_weights(format, len, dims[0] as usize, seed);
            writer.tensor(name, format, dims, values).unwrap();
        }
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, writer.to_bytes()).unwrap();
    path
}

fn open(path: &Path) -> Arc<Model> {
    let options = OpenOptions::default();
    Model::open(Source::Path(path), &options, &mut Control::none()).unwrap()
}

/// The logits after each of some tokens, which are evaluated one by one.
fn logits(model: &Arc<Model>) -> Vec<u8> {
    let options = SessionOptions {
        chunk: 1,
        ..SessionOptions::default()
    };
    let team = TeamOptions {
        threads: 2,
        ..TeamOptions::default()
    };
    let mut session = Session::new(model.clone(), Team::new(team).unwrap(), &options).unwrap();
    let tokens: Vec<u32> = (0..60).map(|i| i * 2_654_435 % VOCAB as u32).collect();
    session.feed(&tokens).unwrap();
    let mut all = Vec::new();
    let mut each = |_, row: &[f32]| all.extend(row.iter().flat_map(|x| x.to_le_bytes()));
    session
        .logits_of_each(&mut Control::none(), &mut each)
        .unwrap();
    all
}

fn page_bytes() -> usize {
    // SAFETY: it only asks for a number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Takes a file's pages out of memory.
fn forget(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    // SAFETY: the descriptor is that of an open file.
    let done = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(done, 0);
}

/// Lets the kernel bring in no more pages of a map than are touched.
fn without_read_ahead(bytes: &[u8]) {
    let start = bytes.as_ptr() as usize / page_bytes() * page_bytes();
    let len = bytes.as_ptr_range().end as usize - start;
    // SAFETY: advice about pages of a map changes nothing that can be seen in them.
    let done = unsafe { libc::madvise(start as *mut _, len, libc::MADV_RANDOM) };
    assert_eq!(done, 0);
}

/// Pages of `bytes` that this process has touched, of how many.
fn touched(bytes: &[u8]) -> (usize, usize) {
    let page = page_bytes();
    let range = bytes.as_ptr_range();
    let (first, end) = (
        (range.start as usize).div_ceil(page),
        range.end as usize / page,
    );
    let mut entries = vec![0; (end - first) * 8];
    let mut map = File::open("/proc/self/pagemap").unwrap();
    map.seek(SeekFrom::Start(first as u64 * 8)).unwrap();
    map.read_exact(&mut entries).unwrap();
    // The top bit says that a page is there.
    let entries = entries.as_chunks::<8>().0.iter();
    let there = entries.filter(|entry| u64::from_le_bytes(**entry) >> 63 == 1);
    (there.count(), end - first)
}

#[test]
fn experts_that_nobody_takes_are_not_touched() {
    let path = make("favoured-experts.gguf", true);
    forget(&path);
    let model = open(&path);
    let stacks = || {
        let tensors = model.gguf().tensors().iter();
        tensors.filter(|tensor| tensor.name.contains("_exps."))
    };
    stacks().for_each(|tensor| without_read_ahead(&tensor.bytes));
    let count = |taken: bool| {
        let (mut there, mut all) = (0, 0);
        for tensor in stacks() {
            let size = tensor.bytes.len() / EXPERTS;
            let experts = tensor.bytes.chunks_exact(size).enumerate();
            for (_, bytes) in experts.filter(|(i, _)| (i % FAVOURED == 0) == taken) {
                // Around a page that is touched, the kernel may map 64 KiB.
                let (pages, of) = touched(&bytes[64 << 10..size - (64 << 10)]);
                (there, all) = (there + pages, all + of);
            }
        }
        (there, all)
    };
    assert_eq!(
        count(true).0 + count(false).0,
        0,
        "opening reads no weights"
    );
    logits(&model);
    let (there, all) = count(true);
    assert!(there == all && all > 0, "{there} of {all} pages");
    let (there, all) = count(false);
    assert!(there == 0 && all > 0, "{there} of {all} pages");
    fs::remove_file(path).unwrap();
}

/// A control group with so much memory.
struct Group(PathBuf);

impl Group {
    /// `None` where this process may make none.
    fn new(bytes: u64) -> Option<Self> {
        let roots = [
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ];
        let mut roots = roots
            .map(|(root, limit)| (Path::new(root), limit))
            .into_iter();
        let (root, limit) = roots.find(|(root, _)| root.join("cgroup.procs").exists())?;
        let folder = root.join(format!("lightgpt-test-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let group = Self(folder);
        let limit = group.0.join(limit);
        // What is no file of the group's must not become one.
        let set = |file: &mut File| file.write_all(bytes.to_string().as_bytes());
        let mut file = File::options().write(true).open(limit).ok()?;
        set(&mut file).ok().map(|()| group)
    }

    /// How often its processes had to give memory back.
    fn pressed(&self) -> u64 {
        let read = |name: &str| fs::read_to_string(self.0.join(name));
        if let Ok(count) = read("memory.failcnt") {
            return count.trim().parse().unwrap();
        }
        let events = read("memory.events").unwrap();
        let line = events.lines().find_map(|line| line.strip_prefix("max "));
        line.unwrap().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_model_larger_than_memory_runs() {
    if let Ok(told) = env::var(CHILD) {
        let (path, group) = told.split_once('\n').unwrap();
        fs::write(Path::new(group).join("cgroup.procs"), "0").unwrap();
        let path = Path::new(path);
        fs::write(path.with_extension("logits"), logits(&open(path))).unwrap();
        return;
    }
    let name = "a_model_larger_than_memory_runs";
    let Some(group) = Group::new(MEMORY_MAX) else {
        let mut stderr = std::io::stderr();
        let _ = writeln!(
            stderr,
            "SKIPPED {name}: no control group of memory can be made"
        );
        return;
    };
    let path = make("larger-than-memory.gguf", false);
    let size = fs::metadata(&path).unwrap().len();
    assert!(size > MEMORY_MAX * 4 / 3, "{size} bytes");
    // What is in memory already is charged to nobody.
    forget(&path);
    let told = format!("{}\n{}", path.display(), group.0.display());
    let mut child = Command::new(env::current_exe().unwrap());
    let ended = child.args(["--exact", name]).env(CHILD, told).status();
    assert!(ended.unwrap().success());
    let (made, pressed) = (path.with_extension("logits"), group.pressed());
    assert!(pressed > 0, "the limit was never reached");
    assert!(fs::read(&made).unwrap() == logits(&open(&path)));
    fs::remove_file(made).unwrap();
    fs::remove_file(path).unwrap();
}
