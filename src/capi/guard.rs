//! What every export runs inside: a failure or a panic becomes a status and a message, the float
//! environment is the library's own, and a forked child is turned away.
//!
//! A panic is never printed for a thread that is inside a call: the hook that the first call
//! installs hands all other threads' panics to the hook that was there before, so that a Rust
//! program keeps its own.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::c_char;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use super::message::Message;
use super::status;
use crate::error::{Code, Error, Result};
use crate::team::{FloatEnvironment, is_helper};

thread_local! {
    // None of these has a destructor, so they may be used while a thread ends.
    static LAST_ERROR: RefCell<Message> = const { RefCell::new(Message::new()) };
    /// Calls that this thread is inside of, those that wait for a callback included.
    static CALLS: Cell<u32> = const { Cell::new(0) };
    /// Callbacks that this thread is inside of.
    static CALLBACKS: Cell<u32> = const { Cell::new(0) };
    /// The float environment of the innermost call, which knows the host's; `None` while host code
    /// runs.
    static FLOAT: Cell<Option<ManuallyDrop<FloatEnvironment>>> = const { Cell::new(None) };
    /// Whether the panic hook has told about the panic that the guard is about to catch.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

/// The process that began to use the library; 0 while none did.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// The message of the last call that failed on this thread; "" if none did.
///
/// Never NULL. The text is UTF-8, ends in a zero byte, and is valid until the next failing call on
/// this thread; longer ones than 1023 bytes are cut. Calls that succeed leave it alone. Any
/// thread; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_last_error() -> *const c_char {
    LAST_ERROR.with(|message| message.try_borrow().map_or(c"".as_ptr(), |m| m.as_ptr()))
}

/// Runs the body of an export: its status, or that of its error or panic.
pub(super) fn guard(body: impl FnOnce() -> Result<i32>) -> i32 {
    if let Err(error) = refuse_forked() {
        return fail(&error);
    }
    install_hook();
    let _inside = Inside::enter(&CALLS);
    let outer = FLOAT.replace(Some(ManuallyDrop::new(FloatEnvironment::enter())));
    let status = catch(body).unwrap_or_else(|error| fail(&error));
    // Dropping it gives the host its own environment back.
    FLOAT.replace(outer).map(ManuallyDrop::into_inner);
    status
}

/// Runs `body`; a panic becomes an `INTERNAL` error.
pub(super) fn catch<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    TOLD.set(false);
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = LAST_ERROR.with_borrow(|m| String::from_utf8_lossy(m.as_bytes()).into_owned());
        let text = if TOLD.replace(false) {
            text
        } else {
            told(&*payload)
        };
        // A payload's own drop might panic again, outside of any guard.
        std::mem::forget(payload);
        Err(Error::new(Code::Internal, "", text))
    })
}

/// Runs host code: with the host's float environment, and with frees that do not wait.
pub(super) fn callback<R>(host: impl FnOnce() -> R) -> R {
    let _inside = Inside::enter(&CALLBACKS);
    let Some(mut float) = FLOAT.take() else {
        return host();
    };
    let result = float.outside(host);
    FLOAT.set(Some(float));
    result
}

/// Whether this thread is inside a callback, where nothing may wait for another call.
pub(super) fn in_callback() -> bool {
    CALLBACKS.get() > 0
}

fn fail(error: &Error) -> i32 {
    LAST_ERROR.with_borrow_mut(|message| message.set(error));
    status::of(error.code())
}

/// Fails in a process that was forked from the one which uses the library. It must come before
/// any lock: another thread may have held it at the fork, and does not exist here.
fn refuse_forked() -> Result<()> {
    let own = std::process::id();
    let known = PROCESS.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed);
    match known {
        Err(user) if user != own => Err(Error::new(
            Code::Forked,
            "",
            format!("process {own} was forked from {user}, which uses the library"),
        )),
        _ => Ok(()),
    }
}

/// Counts a nesting for as long as it lives.
struct Inside(&'static std::thread::LocalKey<Cell<u32>>);

impl Inside {
    fn enter(depth: &'static std::thread::LocalKey<Cell<u32>>) -> Self {
        depth.set(depth.get() + 1);
        Self(depth)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn install_hook() {
    static ONCE: Once = Once::new();
    // A thread that is unwinding may not change the hook; the next call will.
    if ONCE.is_completed() || std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !is_ours() {
                before(info);
            } else if CALLS.get() > 0 {
                TOLD.set(true);
                LAST_ERROR
                    .with(|m| m.try_borrow_mut().map(|mut m| m.set(Panic(info))))
                    .ok();
            }
        }));
    });
}

/// Whether this thread runs the library: it is in a call but not in a callback, or it is a helper
/// of a team.
fn is_ours() -> bool {
    CALLS.get() > CALLBACKS.get() || is_helper()
}

/// What a panic says, and where.
struct Panic<'a>(&'a PanicHookInfo<'a>);

impl std::fmt::Display for Panic<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&told(self.0.payload()))?;
        self.0
            .location()
            .map_or(Ok(()), |place| write!(f, " ({place})"))
    }
}

fn told(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!(
        "a defect of the library: {}",
        text.unwrap_or("a panic without a text")
    )
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::super::status::{LIGHTGPT_INTERNAL, LIGHTGPT_INVALID_ARGUMENT, LIGHTGPT_OK};
    use super::*;

    fn last_error() -> String {
        // SAFETY: never NULL, ends in a zero byte, and this thread makes no call meanwhile.
        let text = unsafe { CStr::from_ptr(lightgpt_last_error()) };
        text.to_string_lossy().into_owned()
    }

    #[test]
    fn errors_and_panics_become_statuses() {
        assert_eq!(last_error(), "");
        let error = Error::new(Code::InvalidArgument, "cap", "too small");
        assert_eq!(guard(|| Err(error)), LIGHTGPT_INVALID_ARGUMENT);
        assert_eq!(guard(|| Ok(LIGHTGPT_OK)), LIGHTGPT_OK);
        assert_eq!(last_error(), "cap: too small");
        assert_eq!(guard(|| panic!("seven")), LIGHTGPT_INTERNAL);
        let text = last_error();
        assert!(
            text.starts_with("a defect of the library: seven (src/capi/guard.rs:"),
            "{text}"
        );
        // A panic that a helper thread handed over does not pass the hook.
        let handed = || std::panic::resume_unwind(Box::new(String::from("eight")));
        assert_eq!(guard(handed), LIGHTGPT_INTERNAL);
        assert_eq!(last_error(), "a defect of the library: eight");
        assert_eq!((CALLS.get(), CALLBACKS.get()), (0, 0));
    }

    #[test]
    fn a_thread_is_ours_by_what_it_is_not_by_its_name() {
        let host = std::thread::Builder::new().name("lightgpt-1".into());
        assert!(!host.spawn(is_ours).unwrap().join().unwrap());
    }

    #[test]
    fn callbacks_nest() {
        let status = guard(|| {
            assert!(!in_callback());
            callback(|| {
                assert!(in_callback());
                assert!(!is_ours());
                assert_eq!(guard(|| Ok(5)), 5);
            });
            assert!(is_ours());
            Ok(7)
        });
        assert_eq!(status, 7);
        assert!(!in_callback());
    }
}
