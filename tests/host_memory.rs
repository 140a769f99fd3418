//! With an executor and an allocator of the host's, the library creates no thread and takes no large
//! memory of its own. One test, because threads and memory are the process's.
#![cfg(target_os = "linux")] // it looks at /proc
#![allow(unsafe_code, clippy::unwrap_used)] // an allocator, and calls of the C interface

#[path = "support/interface.rs"]
mod interface;
#[path = "support/programs.rs"]
mod programs;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::fs;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;

use lightgpt::capi::*;

use interface::{last_error, new, ok};

/// What one block of the general allocator is large from.
const LARGE: usize = 32 << 10;

/// Counts large blocks.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: usize) {
    if bytes >= LARGE {
        COUNT.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(bytes, Ordering::Relaxed);
    }
}

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        // SAFETY: promised by the caller.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was seen while the library was working.
static THREADS: AtomicU64 = AtomicU64::new(0);
static WRITABLE: AtomicU64 = AtomicU64::new(0);

fn threads() -> u64 {
    fs::read_dir("/proc/self/task").unwrap().count() as u64
}

/// Bytes of private memory that can be written, touched or not: the heap, and anonymous maps.
fn writable() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmData:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse::<u64>().unwrap() << 10
}

fn look() {
    THREADS.fetch_max(threads(), Ordering::Relaxed);
    WRITABLE.fetch_max(writable(), Ordering::Relaxed);
}

/// The host's memory: an arena taken beforehand, which gives nothing twice.
struct Arena {
    begin: usize,
    end: usize,
    next: AtomicUsize,
    held: [AtomicUsize; 4],
    destroyed: AtomicBool,
}

unsafe extern "C" fn allocate(
    arena: *mut c_void,
    bytes: usize,
    align: usize,
    tag: u32,
) -> *mut c_void {
    // SAFETY: the arena outlives the model.
    let arena = unsafe { &*arena.cast::<Arena>() };
    assert!(bytes > 0 && align.is_power_of_two() && align <= 64);
    let begin = arena.next.fetch_add(bytes + align, Ordering::Relaxed);
    let begin = begin.next_multiple_of(align);
    if begin + bytes > arena.end {
        return ptr::null_mut();
    }
    arena.held[tag as usize].fetch_add(bytes, Ordering::Relaxed);
    ptr::with_exposed_provenance_mut(begin)
}

unsafe extern "C" fn release(
    arena: *mut c_void,
    memory: *mut c_void,
    bytes: usize,
    _: usize,
    tag: u32,
) {
    // SAFETY: the arena outlives the model.
    let arena = unsafe { &*arena.cast::<Arena>() };
    assert!((arena.begin..arena.end).contains(&memory.addr()));
    arena.held[tag as usize].fetch_sub(bytes, Ordering::Relaxed);
}

unsafe extern "C" fn destroy(arena: *mut c_void) {
    // SAFETY: the arena outlives the model.
    let arena = unsafe { &*arena.cast::<Arena>() };
    assert_eq!(arena.held(), [0; 4]);
    assert!(!arena.destroyed.swap(true, Ordering::Relaxed));
}

impl Arena {
    fn new(memory: &mut [u8]) -> Self {
        let begin = memory.as_mut_ptr().expose_provenance();
        Self {
            begin,
            end: begin + memory.len(),
            next: AtomicUsize::new(begin),
            held: Default::default(),
            destroyed: AtomicBool::new(false),
        }
    }

    fn held(&self) -> [usize; 4] {
        std::array::from_fn(|tag| self.held[tag].load(Ordering::Relaxed))
    }

    fn describe(&self) -> lightgpt_allocator {
        lightgpt_allocator {
            allocate: Some(allocate),
            release: Some(release),
            user_data: ptr::from_ref(self).cast_mut().cast(),
            destroy: Some(destroy),
            ..new()
        }
    }
}

/// The host's threads, which wait for something to run.
#[derive(Default)]
struct Jobs {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    body: lightgpt_body_fn,
    data: usize,
    wanted: u32,
    busy: u32,
    ran: u64,
    ending: bool,
}

impl Jobs {
    fn work(&self) {
        // So that this thread has a heap before anyone looks.
        drop(std::hint::black_box(vec![1u8; 1000]));
        let mut state = self.state.lock().unwrap();
        while !state.ending {
            if state.wanted == 0 {
                state = self.changed.wait(state).unwrap();
                continue;
            }
            (state.wanted, state.busy) = (state.wanted - 1, state.busy + 1);
            let (body, data) = (state.body.unwrap(), state.data);
            drop(state);
            // SAFETY: as the library asks.
            unsafe { body(ptr::without_provenance_mut(data)) };
            state = self.state.lock().unwrap();
            (state.busy, state.ran) = (state.busy - 1, state.ran + 1);
            self.changed.notify_all();
        }
    }
}

/// Ends the host's threads, whatever happens.
struct End<'a>(&'a Jobs);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().ending = true;
        self.0.changed.notify_all();
    }
}

unsafe extern "C" fn parallel_for(
    jobs: *mut c_void,
    bodies: u32,
    body: lightgpt_body_fn,
    data: *mut c_void,
) {
    // SAFETY: the jobs outlive the team.
    let jobs = unsafe { &*jobs.cast::<Jobs>() };
    let mut state = jobs.state.lock().unwrap();
    (state.body, state.data, state.wanted) = (body, data.addr(), bodies);
    jobs.changed.notify_all();
    while state.wanted > 0 || state.busy > 0 {
        state = jobs.changed.wait(state).unwrap();
    }
}

unsafe extern "C" fn read_at(
    file: *mut c_void,
    offset: u64,
    buffer: *mut c_void,
    bytes: usize,
) -> i64 {
    // SAFETY: that of the call that opens the model, and a buffer of so many bytes.
    let (file, out) = unsafe {
        let file = &*file.cast::<fs::File>();
        (
            file,
            std::slice::from_raw_parts_mut(buffer.cast::<u8>(), bytes),
        )
    };
    std::os::unix::fs::FileExt::read_at(file, out, offset).map_or(-1, |read| read as i64)
}

unsafe extern "C" fn on_event(out: *mut c_void, event: *const lightgpt_event) -> i32 {
    look();
    // SAFETY: a vector that outlives the call, and an event of the library.
    unsafe {
        let event = &*event;
        if event.text_bytes > 0 {
            let text = event.text.cast::<u8>();
            let text = std::slice::from_raw_parts(text, event.text_bytes as usize);
            (*out.cast::<Vec<u8>>()).extend_from_slice(text);
        }
    }
    LIGHTGPT_CONTINUE
}

unsafe extern "C" fn on_batch_event(_: *mut c_void, event: *const lightgpt_batch_event) -> i32 {
    look();
    // SAFETY: an event of the library.
    assert!(unsafe { (*event).status } >= 0);
    LIGHTGPT_CONTINUE
}

/// Large blocks of the general allocator while the model was opened, and afterwards.
#[derive(Debug, Default)]
struct Large {
    opening: [usize; 2],
    running: [usize; 2],
}

fn large() -> [usize; 2] {
    [&COUNT, &BYTES].map(|number| number.swap(0, Ordering::Relaxed))
}

/// Opens a model, tells a story in a session, and others in a queue.
fn live(allocator: Option<&lightgpt_allocator>, team: *const lightgpt_team) -> (Vec<u8>, Large) {
    let file = fs::File::open(programs::model()).unwrap();
    let (mut options, mut model) = (new::<lightgpt_open_options>(), ptr::null_mut());
    options.allocator = allocator.map_or(ptr::null(), ptr::from_ref);
    let (mut session, mut queue) = (ptr::null_mut(), ptr::null_mut());
    let (mut text, mut found) = (Vec::with_capacity(1 << 14), Large::default());
    let prompt = "Once upon a time there was a little dog who liked to sing. ".repeat(12);
    let prompt_text = prompt.as_ptr().cast();
    let mut generate = new::<lightgpt_generate_options>();
    (generate.tokens_max, generate.flags) = (60, LIGHTGPT_GENERATE_IGNORE_END);
    large();
    // SAFETY: every pointer is NULL or that of something here that is as large as said.
    unsafe {
        let bytes = file.metadata().unwrap().len();
        let reader = ptr::from_ref(&file).cast_mut().cast();
        ok(lightgpt_model_open_reader(
            Some(read_at),
            reader,
            bytes,
            &options,
            &raw mut model,
        ));
        found.opening = large();
        ok(lightgpt_session_new(
            model,
            team,
            ptr::null(),
            &raw mut session,
        ));
        let (fed, out) = (prompt.len(), (&raw mut text).cast());
        ok(lightgpt_session_feed_text(
            session,
            prompt_text,
            fed,
            1,
            ptr::null_mut(),
        ));
        let told = lightgpt_session_generate(session, &generate, Some(on_event), out);
        assert_eq!(told, LIGHTGPT_DONE, "{}", last_error());
        ok(lightgpt_batch_queue_new(
            model,
            team,
            ptr::null(),
            &raw mut queue,
        ));
        let mut request = new::<lightgpt_batch_request>();
        (request.text, request.text_bytes) = (prompt_text, prompt.len() as u64);
        request.generate = &raw const generate;
        request.event = Some(on_batch_event);
        let mut id = 0;
        for _ in 0..6 {
            ok(lightgpt_batch_queue_submit(queue, &request, &raw mut id));
        }
        assert_eq!(lightgpt_batch_queue_step(queue, 0), LIGHTGPT_DONE);
    }
    found.running = large();
    ok(lightgpt_batch_queue_free(queue));
    ok(lightgpt_session_free(session));
    ok(lightgpt_model_free(model));
    (text, found)
}

#[test]
fn threads_and_large_memory_are_the_hosts() {
    const HELPERS: usize = 2;
    let mut memory = vec![0u8; 128 << 20];
    let (arena, jobs) = (Arena::new(&mut memory), Jobs::default());
    thread::scope(|scope| {
        let _end = End(&jobs);
        for _ in 0..HELPERS {
            scope.spawn(|| jobs.work());
        }
        let (mut options, mut team) = (new::<lightgpt_team_options>(), ptr::null_mut());
        options.threads = 1 + HELPERS as u32;
        options.parallel_for = Some(parallel_for);
        options.parallel_for_data = ptr::from_ref(&jobs).cast_mut().cast();
        // SAFETY: both are locals that fit.
        ok(unsafe { lightgpt_team_new(&options, &raw mut team) });
        thread::sleep(std::time::Duration::from_millis(100));

        let (threads_before, before) = (threads(), writable());
        look();
        let (text, found) = live(Some(&arena.describe()), team);
        let grown = WRITABLE.swap(0, Ordering::Relaxed) - before;
        println!("with the host's allocator: {grown} bytes of other memory, {found:?}");
        assert_eq!(THREADS.load(Ordering::Relaxed), threads_before);
        // The tables of the vocabulary, the room that each thread keeps, and what malloc rounds up.
        let tables = found.opening[1] as u64;
        assert!(grown < tables + (1 + HELPERS as u64) * (80 << 10) + (256 << 10));
        assert!(arena.destroyed.load(Ordering::Relaxed));
        let asked = arena.next.load(Ordering::Relaxed) - arena.begin;
        assert!(asked > 8 << 20, "{asked}");
        assert_eq!(
            found.running,
            [0, 0],
            "large blocks of the general allocator"
        );

        // Without it the same is seen here.
        let (same, _) = live(None, team);
        assert_eq!(same, text);
        let without = WRITABLE.load(Ordering::Relaxed) - before;
        println!("without: {without} bytes");
        assert!(without > 4 * grown && without > 8 << 20);

        ok(lightgpt_team_free(team));
        let ran = jobs.state.lock().unwrap().ran;
        assert!(ran > 1000, "{ran}");
    });
}
