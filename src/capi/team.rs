//! The team in C: own helper threads or the host's executor.

use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::Arc;

use super::arguments::{Out, flags, input, invalid, size};
use super::guard::{callback, guard};
use super::handles::{Kind, Table};
use super::objects::{Handle, Object, enter, free, insert};
use super::options::{Struct, UserData, lightgpt_destroy_fn, read};
use super::status::LIGHTGPT_OK;
use crate::error::Result;
use crate::model::Model;
use crate::team::{Executor, Team, TeamOptions};

/// The threads that compute; may serve any number of sessions of any models. Immutable.
#[derive(Debug)]
pub struct lightgpt_team {
    _opaque: (),
}

/// The work that a host's executor is asked to run.
///
/// Any thread may call it. It returns at once when there is nothing left to do, and does nothing
/// after the executor has returned.
pub type lightgpt_body_fn = Option<unsafe extern "C" fn(body_data: *mut c_void)>;

/// A host's own way to run something on several threads.
///
/// It should call body(body_data) up to `bodies` times, on any threads at once, and return when
/// those calls have returned. Fewer calls, or none, are fine: the calling thread does the work that
/// nobody takes. It runs on the thread that called in, many times in one call, also from several
/// threads when several sessions share the team. A thread that it needs must not meanwhile wait in
/// lightgpt_session_free for a session whose call runs on this executor: each would wait for the
/// other.
pub type lightgpt_parallel_for_fn = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        bodies: u32,
        body: lightgpt_body_fn,
        body_data: *mut c_void,
    ),
>;

/// Bind each helper thread to one CPU (Linux), from the second of `cpus` on: the first is left to the
/// calling thread, which the library does not bind.
pub const LIGHTGPT_TEAM_PIN: u32 = 1;

/// `node` is set. One team a node keeps threads beside their memory, if the threads that call in run
/// on the same node: a session's memory lies where it is touched first.
pub const LIGHTGPT_TEAM_NODE: u32 = 2;

/// How to make a team; all zero: as many threads as physical cores this process may use.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_team_options {
    /// Set by LIGHTGPT_TEAM_OPTIONS_INIT.
    pub struct_size: u32,
    /// Threads that work, the calling one included; 0: the physical cores that this process may
    /// use (affinity and container quota). 1 starts no thread.
    pub threads: u32,
    /// CPUs that the helper threads should run on (Linux; elsewhere ignored), `cpus_len` numbers;
    /// NULL with 0: all that the process may use. Numbers without a CPU are ignored. Read during
    /// the call only.
    pub cpus: *const u32,
    /// Numbers at `cpus`.
    pub cpus_len: u64,
    /// Stack of a helper thread in bytes; 0: 2 MiB.
    pub stack_bytes: u64,
    /// The host's executor, instead of helper threads of the library; NULL: none.
    pub parallel_for: lightgpt_parallel_for_fn,
    /// Handed to `parallel_for`.
    pub parallel_for_data: *mut c_void,
    /// Called with `parallel_for_data` when the team has gone; NULL: nothing to do.
    pub parallel_for_destroy: lightgpt_destroy_fn,
    /// LIGHTGPT_TEAM_ bits.
    pub flags: u32,
    /// With LIGHTGPT_TEAM_NODE: the NUMA node on whose CPUs the helper threads run (Linux).
    pub node: u32,
    /// How far the helper threads stand back for others (Linux), from 0 to 19, as `nice` has it.
    pub niceness: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: as the trait asks; NULL pointers and functions are all zeros.
unsafe impl Struct for lightgpt_team_options {
    const SIZE_MIN: usize =
        offset_of!(Self, parallel_for_destroy) + size_of::<lightgpt_destroy_fn>();
    const RESERVED: &'static [usize] = &[offset_of!(Self, reserved)];
}

pub(super) struct TeamObject {
    pub team: Arc<Team>,
}

impl Object for TeamObject {}

impl Handle for lightgpt_team {
    type Object = TeamObject;
    const KIND: Kind = Kind::Team;
}

/// Makes a team.
///
/// options: NULL for the defaults. team: not NULL; gets a handle that lightgpt_team_free gives
/// back. `parallel_for_data` becomes the team's only if the call succeeds. Any thread.
/// Errors: LIGHTGPT_INVALID_ARGUMENT (more than 256 threads, a node that the system does not know,
/// a niceness above 19), LIGHTGPT_UNSUPPORTED (an unknown flag),
/// LIGHTGPT_OUT_OF_MEMORY (the system starts no thread).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_team_new(
    options: *const lightgpt_team_options,
    team: *mut *mut lightgpt_team,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a handle.
        let out = unsafe { Out::new(team, "team") }?;
        // SAFETY: the header asks for options as large as they say.
        let options = unsafe { read(options, "options") }?;
        let data = Arc::new(UserData::new(options.parallel_for_data));
        // SAFETY: read from the caller's struct, which promises `cpus_len` numbers at `cpus`.
        let made = unsafe { team_options(&options, &data) }?;
        let handle = insert(TeamObject {
            team: Team::new(made)?,
        })?;
        if options.parallel_for.is_some() {
            data.keep(options.parallel_for_destroy);
        }
        out.set(handle);
        Ok(LIGHTGPT_OK)
    })
}

/// How many threads of the team may work at once, the calling one included.
///
/// threads: not NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_team_threads(
    team: *const lightgpt_team,
    threads: *mut u32,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a number.
        let out = unsafe { Out::new(threads, "threads") }?;
        let team = enter(team)?;
        out.set(u32::try_from(team.team.threads()).unwrap_or(u32::MAX));
        Ok(LIGHTGPT_OK)
    })
}

/// The team of a handle; NULL: the one that all sessions of the model share that bring none.
pub(super) fn team_or_own(team: *const lightgpt_team, model: &Model) -> Result<Arc<Team>> {
    match team.is_null() {
        true => model.team(),
        false => Ok(enter(team)?.team.clone()),
    }
}

/// Gives a team back. Its threads end with its last session, or now if there is none.
///
/// NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_team_free(team: *mut lightgpt_team) -> i32 {
    free(team)
}

/// # Safety
/// `options.cpus` is NULL or leads to `cpus_len` numbers.
unsafe fn team_options(
    options: &lightgpt_team_options,
    data: &Arc<UserData>,
) -> Result<TeamOptions> {
    // SAFETY: promised by the caller.
    let cpus = unsafe { input(options.cpus, size(options.cpus_len, "cpus_len")?, "cpus") }?;
    let executor = options.parallel_for.map(|function| {
        let data = data.clone();
        Box::new(HostExecutor { function, data }) as Box<dyn Executor>
    });
    if executor.is_none() && options.parallel_for_destroy.is_some() {
        return Err(invalid(
            "parallel_for_destroy",
            "it comes without parallel_for",
        ));
    }
    let known = LIGHTGPT_TEAM_PIN | LIGHTGPT_TEAM_NODE;
    let flags = flags(options.flags, known, "flags")?;
    let niceness =
        u8::try_from(options.niceness).map_err(|_| invalid("niceness", "expected at most 19"))?;
    Ok(TeamOptions {
        threads: options.threads as usize,
        node: (flags & LIGHTGPT_TEAM_NODE != 0).then_some(options.node as usize),
        pin: flags & LIGHTGPT_TEAM_PIN != 0,
        niceness,
        cpus: cpus.iter().map(|&cpu| cpu as usize).collect(),
        stack_bytes: size(options.stack_bytes, "stack_bytes")?,
        executor,
        alone_ns: None,
    })
}

/// The work of the executors that are running. A handle, not an address, goes through the host:
/// a call that comes too late finds nothing, and one that is still inside is waited for.
static BODIES: Table<Body> = Table::new();

/// A reference to the work, whose true lifetime ends when it is removed from [`BODIES`].
#[derive(Clone, Copy)]
struct Body(&'static (dyn Fn() + Sync));

struct HostExecutor {
    function: unsafe extern "C" fn(*mut c_void, u32, lightgpt_body_fn, *mut c_void),
    data: Arc<UserData>,
}

impl Executor for HostExecutor {
    fn parallel_for(&self, bodies: usize, body: &(dyn Fn() + Sync)) {
        /// Takes the work back, whatever happens.
        struct Shared(usize);
        impl Drop for Shared {
            fn drop(&mut self) {
                let removed = BODIES.remove(Kind::Body, self.0, true, |_| {});
                debug_assert!(removed.is_ok(), "only this drop removes it");
            }
        }
        // SAFETY: only the lifetime changes, and `Shared` makes the true one long enough: it
        // removes the work and waits for the calls inside it before this function ends.
        let body = unsafe { std::mem::transmute::<&(dyn Fn() + Sync), &'static _>(body) };
        // Without a free handle nobody helps, which is allowed.
        let Ok(handle) = BODIES.insert(Kind::Body, Body(body)) else {
            return;
        };
        let _shared = Shared(handle);
        let bodies = u32::try_from(bodies).unwrap_or(u32::MAX);
        let handle = std::ptr::without_provenance_mut(handle);
        // SAFETY: the header describes this call to who wrote the function.
        callback(|| unsafe { (self.function)(self.data.pointer, bodies, Some(run_body), handle) });
    }
}

/// The `lightgpt_body_fn` that executors get.
extern "C" fn run_body(body_data: *mut c_void) {
    guard(|| {
        if let Ok(entered) = BODIES.enter(Kind::Body, body_data.addr()) {
            (entered.object().0)();
        }
        Ok(LIGHTGPT_OK)
    });
}
