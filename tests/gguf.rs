//! Model files through every source and option: what is written is read back, parts find each
//! other, memory is released once, and a change of the file shows.
#![allow(unsafe_code)] // hands out borrowed memory
#![allow(clippy::unwrap_used)] // a test

#[path = "support/files.rs"]
mod files;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lightgpt::budget::{Budget, Tag};
use lightgpt::control::Control;
use lightgpt::error::{Code, Result};
use lightgpt::gguf::{Array, Borrowed, Gguf, LoadOptions, Source, Strings, Value, Writer};
use lightgpt::quant::Format;

use files::{directory, open_path, open_with};

fn open(path: &Path) -> Result<Gguf> {
    open_path(path, false)
}

fn copied() -> LoadOptions {
    LoadOptions {
        copy: true,
        ..LoadOptions::default()
    }
}

/// One value of every type, and two tensors.
fn sample() -> Writer<'static> {
    let mut writer = Writer::new();
    let arrays = Array::Arrays([Array::U8([1, 2].into()), Array::Arrays([].into())].into());
    let values: [(&str, Value); 24] = [
        ("u8", 1u8.into()),
        ("i8", (-1i8).into()),
        ("u16", 2u16.into()),
        ("i16", (-2i16).into()),
        ("u32", 3u32.into()),
        ("i32", (-3i32).into()),
        ("u64", u64::MAX.into()),
        ("i64", i64::MIN.into()),
        ("f32", 0.5f32.into()),
        ("f64", 0.25f64.into()),
        ("bool", true.into()),
        ("string", "text \u{e9}".into()),
        ("u8s", vec![1u8, 2].into()),
        ("i8s", vec![-1i8].into()),
        ("u16s", vec![1u16, 2].into()),
        ("i16s", vec![-1i16].into()),
        ("u32s", vec![1u32, 2].into()),
        ("i32s", vec![-1i32].into()),
        ("u64s", vec![1u64, 2].into()),
        ("i64s", vec![-1i64].into()),
        ("f32s", vec![1.5f32].into()),
        ("bools", vec![true, false].into()),
        ("strings", Strings::from_iter(["a", "", "bc"]).into()),
        ("arrays", Value::Array(arrays)),
    ];
    for (key, value) in values {
        writer.set(key, value).unwrap();
    }
    writer
        .tensor("q", Format::Q8_0, &[64, 3], (0..204).collect::<Vec<u8>>())
        .unwrap();
    writer
        .tensor("f", Format::F32, &[5], (0..20).collect::<Vec<u8>>())
        .unwrap();
    writer
}

/// `gguf` holds exactly what `sample` wrote.
fn assert_sample(gguf: &Gguf) {
    let memory = open_with(Source::Owned(sample().to_bytes()), &LoadOptions::default()).unwrap();
    assert_eq!(gguf.metadata().len(), 24);
    assert!(gguf.metadata().iter().eq(memory.metadata().iter()));
    let q = gguf.tensor("q").unwrap();
    assert_eq!(
        (q.format, q.dims, q.dimensions),
        (Format::Q8_0, [64, 3, 1, 1], 2)
    );
    assert!(q.bytes.iter().copied().eq(0..204));
    let f = gguf.tensor("f").unwrap();
    assert_eq!(
        (f.format, f.dims, f.values(), &f.bytes[..3]),
        (Format::F32, [5, 1, 1, 1], 5, &[0, 1, 2][..])
    );
    assert_eq!(
        gguf.tensors().iter().map(|t| &*t.name).collect::<Vec<_>>(),
        ["q", "f"]
    );
    assert!(gguf.tensor("absent").is_none());
}

#[test]
fn every_source_and_option_reads_what_was_written() {
    let path = directory("gguf-round").join("m.gguf");
    let bytes = sample().to_bytes();
    fs::write(&path, &bytes).unwrap();
    for (copy, prefault) in [(false, false), (false, true), (true, false)] {
        let options = LoadOptions {
            copy,
            prefault,
            ..LoadOptions::default()
        };
        let gguf = open_with(Source::Path(&path), &options).unwrap();
        assert_sample(&gguf);
        assert_eq!((gguf.version(), gguf.parts()), (3, 1));
        assert_eq!(gguf.file_bytes(), bytes.len() as u64);
        assert_sample(&open_with(Source::Owned(bytes.clone()), &options).unwrap());
    }
    let mut version_2 = bytes;
    version_2[4] = 2;
    let gguf = open_with(Source::Owned(version_2), &LoadOptions::default()).unwrap();
    assert_eq!(gguf.version(), 2);
    assert_sample(&gguf);
    let text = gguf.inspect().to_string();
    for line in [
        "2 tensors",
        "strings: array = [string; 3]",
        "q Q8_0 [64, 3]: 204 bytes at",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[test]
fn alignment_is_kept() {
    for alignment in [1u32, 8, 4096] {
        let mut writer = sample();
        writer.set("general.alignment", alignment).unwrap();
        let gguf = open_with(Source::Owned(writer.to_bytes()), &LoadOptions::default()).unwrap();
        for tensor in gguf.tensors() {
            assert!(tensor.offset.is_multiple_of(alignment.into()));
        }
        assert_eq!(gguf.tensor("f").unwrap().bytes[19], 19);
    }
}

#[test]
fn the_writer_refuses_what_no_reader_takes() {
    let mut writer = sample();
    let longest = "x".repeat(64);
    writer
        .tensor(&longest, Format::F32, &[1, 1, 1, 1], vec![0; 4])
        .unwrap();
    assert!(writer.tensor("q", Format::F32, &[1], vec![0; 4]).is_err());
    assert!(writer.tensor("", Format::F32, &[1], vec![0; 4]).is_err());
    assert!(
        writer
            .tensor(&"x".repeat(65), Format::F32, &[1], vec![0; 4])
            .is_err()
    );
    for (dims, bytes) in [
        (&[][..], 4),
        (&[1; 5], 4),
        (&[0], 0),
        (&[2], 4),
        (&[1 << 62], 4),
    ] {
        let e = writer
            .tensor("n", Format::F32, dims, vec![0; bytes])
            .unwrap_err();
        assert_eq!(e.code(), Code::InvalidArgument);
    }
    assert!(writer.set("", 1u32).is_err());
    assert!(writer.set("general.alignment", 48u32).is_err());
    assert!(writer.set("general.alignment", 32u64).is_err());
    writer.set("u8", "another").unwrap();
    let gguf = open_with(Source::Owned(writer.to_bytes()), &LoadOptions::default()).unwrap();
    assert_eq!(
        gguf.metadata().iter().next(),
        Some(("u8", &"another".into()))
    );
}

/// Borrowed memory that counts its releases.
fn borrowed(bytes: &'static [u8]) -> (Source<'static>, Arc<AtomicUsize>) {
    let releases = Arc::new(AtomicUsize::new(0));
    let counter = releases.clone();
    let release = Box::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    // SAFETY: the bytes are leaked: they stay and do not change.
    let borrowed = unsafe { Borrowed::new(bytes.as_ptr(), bytes.len(), release) };
    (Source::Borrowed(borrowed), releases)
}

#[test]
fn borrowed_memory_is_released_once() {
    let bytes: &[u8] = sample().to_bytes().leak();
    let (source, releases) = borrowed(bytes);
    let gguf = open_with(source, &LoadOptions::default()).unwrap();
    assert_sample(&gguf);
    let view = gguf.tensor("f").unwrap().bytes.clone();
    assert!(bytes.as_ptr_range().contains(&view.as_ptr()), "not copied");
    drop(gguf);
    assert_eq!((view[4], releases.load(Ordering::Relaxed)), (4, 0));
    std::thread::spawn(move || drop(view)).join().unwrap();
    assert_eq!(releases.load(Ordering::Relaxed), 1);

    let (source, releases) = borrowed(bytes);
    let gguf = open_with(source, &copied()).unwrap();
    assert_eq!(
        releases.load(Ordering::Relaxed),
        1,
        "a copy needs it no more"
    );
    assert_sample(&gguf);

    let (source, releases) = borrowed(&bytes[..100]);
    assert!(open_with(source, &LoadOptions::default()).is_err());
    assert_eq!(
        releases.load(Ordering::Relaxed),
        1,
        "released when opening fails"
    );
}

#[cfg(unix)]
#[test]
fn a_descriptor_opens_at_any_offset() {
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsRawFd;

    let path = directory("gguf-fd").join("archive");
    let bytes = sample().to_bytes();
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    let lead = vec![0xaa; 5003];
    file.write_all(&lead).unwrap();
    file.write_all(&bytes).unwrap();
    file.write_all(&lead).unwrap();
    file.seek(std::io::SeekFrom::Start(17)).unwrap();
    let (offset, len) = (lead.len() as u64, bytes.len() as u64);
    let fd = file.as_raw_fd();
    let first = open_with(Source::Fd { fd, offset, len }, &LoadOptions::default()).unwrap();
    let second = open_with(Source::Fd { fd, offset, len }, &copied()).unwrap();
    assert_eq!(file.stream_position().unwrap(), 17);
    file.read_exact(&mut [0; 1]).unwrap();
    drop(file);
    for gguf in [first, second] {
        assert_sample(&gguf);
        gguf.check_unchanged().unwrap();
        assert_eq!(gguf.file_bytes(), len);
    }
    let closed = open_with(
        Source::Fd {
            fd: -1,
            offset,
            len,
        },
        &LoadOptions::default(),
    );
    assert_eq!(closed.unwrap_err().code(), Code::Io);
}

#[cfg(unix)]
#[test]
fn a_descriptor_must_hold_the_window() {
    use std::os::fd::AsRawFd;

    let path = directory("gguf-fd-window").join("m.gguf");
    let len = sample().to_bytes().len() as u64;
    fs::write(&path, sample().to_bytes()).unwrap();
    let file = File::open(path).unwrap();
    for (offset, len) in [(1, len), (0, len + 1), (u64::MAX, 2), (len, u64::MAX)] {
        let source = Source::Fd {
            fd: file.as_raw_fd(),
            offset,
            len,
        };
        let e = open_with(source, &LoadOptions::default()).unwrap_err();
        assert_eq!(e.code(), Code::InvalidArgument, "{e}");
    }
    let short = Source::Fd {
        fd: file.as_raw_fd(),
        offset: 0,
        len: len - 40,
    };
    assert_eq!(
        open_with(short, &LoadOptions::default())
            .unwrap_err()
            .code(),
        Code::Format
    );
}

#[test]
fn a_changed_file_shows_unless_it_was_copied() {
    let directory = directory("gguf-changed");
    let (path, other) = (directory.join("m.gguf"), directory.join("n.gguf"));
    fs::write(&path, sample().to_bytes()).unwrap();
    fs::write(&other, b"another file").unwrap();
    let mapped = open(&path).unwrap();
    let copy = open_with(Source::Path(&path), &copied()).unwrap();
    mapped.check_unchanged().unwrap();
    fs::rename(&other, &path).unwrap();
    mapped
        .check_unchanged()
        .expect("the mapped file itself is as it was");
    assert_sample(&mapped);

    fs::write(&path, sample().to_bytes()).unwrap();
    let mapped = open(&path).unwrap();
    File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let e = mapped.check_unchanged().unwrap_err();
    assert_eq!(e.code(), Code::FileChanged, "{e}");
    assert!(e.to_string().contains("m.gguf"), "{e}");
    copy.check_unchanged().unwrap();
    assert_sample(&copy);
}

#[test]
fn a_file_that_changes_under_a_copy_is_refused() {
    let path = directory("gguf-copying").join("m.gguf");
    let mut writer = Writer::new();
    let len = 3 << 20;
    writer
        .tensor("w", Format::I8, &[len], vec![3; len as usize])
        .unwrap();
    let bytes = writer.to_bytes();
    for new_len in [len / 2, 2 * len] {
        fs::write(&path, &bytes).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let mut change = |done, _| {
            if done == 1 << 20 {
                file.set_len(new_len).unwrap();
            }
            true
        };
        let mut control = Control {
            progress: Some(&mut change),
            ..Control::none()
        };
        let e = Gguf::open(Source::Path(&path), &copied(), &mut control).unwrap_err();
        assert_eq!(e.code(), Code::FileChanged, "{e}");
    }
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    let directory = directory("gguf-kinds");
    let fifo = directory.join("fifo.gguf");
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .unwrap();
    assert!(made.success());
    for path in [&*fifo, &*directory, Path::new("/dev/zero")] {
        let e = open(path).unwrap_err();
        assert_eq!(e.code(), Code::InvalidArgument, "{e}");
        assert!(e.to_string().contains("regular file"), "{e}");
    }
    assert_eq!(
        open(Path::new("a\0b")).unwrap_err().code(),
        Code::InvalidArgument
    );
    let e = open(&directory.join("absent.gguf")).unwrap_err();
    assert_eq!(e.code(), Code::Io);
    assert!(e.to_string().contains("absent.gguf"), "{e}");
}

#[test]
fn copies_are_counted_and_capped() {
    let path = directory("gguf-budget").join("m.gguf");
    fs::write(&path, sample().to_bytes()).unwrap();
    let budget = Budget::new(Some(4096), None);
    let options = LoadOptions {
        budget: budget.clone(),
        ..copied()
    };
    let gguf = open_with(Source::Path(&path), &options).unwrap();
    assert_eq!(
        budget.tag_bytes(Tag::Weights),
        256,
        "244 bytes of tensors, rounded up"
    );
    drop(gguf);
    assert_eq!(budget.bytes(), 0);
    let options = LoadOptions {
        budget: Budget::new(Some(64), None),
        ..copied()
    };
    let e = open_with(Source::Path(&path), &options).unwrap_err();
    assert_eq!(e.code(), Code::MemoryCap, "{e}");
}

#[test]
fn opening_reports_bytes_and_can_be_cancelled() {
    let path = directory("gguf-control").join("m.gguf");
    let bytes = vec![3; 5 << 20];
    let mut writer = Writer::new();
    writer
        .tensor("w", Format::I8, &[5 << 20], &bytes[..])
        .unwrap();
    fs::write(&path, writer.to_bytes()).unwrap();
    let copy = copied();
    let prefault = LoadOptions {
        prefault: true,
        ..LoadOptions::default()
    };
    for options in [&copy, &prefault] {
        for stop_at in [0, 2 << 20, u64::MAX] {
            let mut last = 0;
            let mut report = |done, total: u64| {
                assert!(done >= last && (total == 0 || total == 5 << 20));
                last = done;
                done < stop_at
            };
            let mut control = Control {
                progress: Some(&mut report),
                ..Control::none()
            };
            let opened = Gguf::open(Source::Path(&path), options, &mut control);
            match stop_at {
                u64::MAX => assert_eq!(opened.unwrap().tensors()[0].bytes[..], bytes),
                _ => assert_eq!(opened.unwrap_err().code(), Code::Cancelled),
            }
            assert_eq!(last, stop_at.min(5 << 20));
        }
    }
    let flag = AtomicBool::new(true);
    let opened = Gguf::open(Source::Path(&path), &copy, &mut Control::cancellable(&flag));
    assert_eq!(opened.unwrap_err().code(), Code::Cancelled);
}

#[cfg(unix)]
#[test]
fn locking_works_or_names_the_limit() {
    let path = directory("gguf-lock").join("m.gguf");
    fs::write(&path, sample().to_bytes()).unwrap();
    for copy in [false, true] {
        let options = LoadOptions {
            copy,
            mlock: true,
            ..LoadOptions::default()
        };
        match open_with(Source::Path(&path), &options) {
            Ok(gguf) => assert_sample(&gguf),
            Err(e) => assert!(e.to_string().contains("RLIMIT_MEMLOCK"), "{e}"),
        }
    }
}

#[test]
fn models_are_shared_between_threads() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Gguf>();
    is_shared::<lightgpt::gguf::Bytes>();
    is_shared::<lightgpt::gguf::Metadata>();
}

#[test]
fn promised_tensors_are_written_when_the_file_is() {
    let mut held = Writer::new();
    let mut promised = Writer::new();
    for (name, len) in [("a", 8), ("b", 3), ("c", 16)] {
        let bytes = vec![len as u8; 4 * len];
        held.tensor(name, Format::F32, &[len as u64], bytes.clone())
            .unwrap();
        match name {
            "b" => promised
                .tensor(name, Format::F32, &[len as u64], bytes)
                .unwrap(),
            _ => promised.promise(name, Format::F32, &[len as u64]).unwrap(),
        };
    }
    assert_eq!(promised.tensor_bytes(), 4 * 27);
    let mut bytes = Vec::new();
    let keep = |name: &str, out: &mut dyn std::io::Write| match name {
        "a" => out.write_all(&[8; 32]),
        _ => out.write_all(&[16; 64]),
    };
    promised.write_with(&mut bytes, &mut { keep }).unwrap();
    assert_eq!(bytes, held.to_bytes());
    let error = promised.write_with(&mut bytes, &mut |_, out| out.write_all(&[0; 33]));
    let error = error.unwrap_err();
    assert_eq!(error.code(), Code::Io);
    let message = "tensor 'a': expected 32 bytes, found 33";
    assert!(error.to_string().contains(message), "{error}");
    assert!(promised.write_to(&mut Vec::new()).is_err());
}
