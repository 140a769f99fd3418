//! What a helper thread is given by the operating system: its CPUs, its priority, and a mask that
//! leaves all signals but its own faults to the host's threads.

/// The CPUs that this thread may run on.
#[cfg(target_os = "linux")]
pub fn allowed() -> Option<Vec<usize>> {
    // SAFETY: an all-zero set is a valid, empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the given number of bytes to the set.
    let status = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
    // SAFETY: `CPU_ISSET` reads the bit of a CPU below `CPU_SETSIZE`.
    let isset = |&cpu: &usize| unsafe { libc::CPU_ISSET(cpu, &set) };
    (status == 0).then(|| (0..libc::CPU_SETSIZE as usize).filter(isset).collect())
}

/// Elsewhere the system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn allowed() -> Option<Vec<usize>> {
    None
}

/// Lets this thread run on `cpus` only; whether the system agreed.
#[cfg(target_os = "linux")]
pub fn restrict(cpus: &[usize]) -> bool {
    // SAFETY: an all-zero set is a valid, empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the CPU's bit lies inside the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the kernel reads the given number of bytes of the set.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) == 0 }
}

/// Elsewhere the system offers no mask: threads run where it puts them.
#[cfg(not(target_os = "linux"))]
pub fn restrict(_: &[usize]) -> bool {
    false
}

/// Lowers the priority of this thread by `niceness`, in [0, 19]; whether the system agreed.
#[cfg(target_os = "linux")]
pub fn yield_to_others(niceness: u8) -> bool {
    // SAFETY: the call changes one number of the calling thread: on Linux, process 0 means it.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness.into()) == 0 }
}

/// Elsewhere threads have the priority of their process.
#[cfg(not(target_os = "linux"))]
pub fn yield_to_others(_: u8) -> bool {
    false
}

/// The signals that a fault of the thread itself raises: while one of them is blocked, its fault
/// ends the process without a word to the host's handler (a crash reporter, say).
#[cfg(unix)]
const FAULTS: [libc::c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
];

/// Runs `spawn` with all signals but faults blocked, so that the thread it makes never runs a
/// handler for what happens elsewhere.
#[cfg(unix)]
pub fn without_signals<R>(spawn: impl FnOnce() -> R) -> R {
    // SAFETY: `sigfillset` makes the set valid before it is used; the faults are signals; the old mask is written by
    // `pthread_sigmask` and restored as it was.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        for fault in FAULTS {
            libc::sigdelset(&mut all, fault);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let result = spawn();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        result
    }
}

/// Signals are a matter of unix.
#[cfg(not(unix))]
pub fn without_signals<R>(spawn: impl FnOnce() -> R) -> R {
    spawn()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_gets_its_cpu_and_its_priority() {
        let cpu = *allowed().unwrap().last().unwrap();
        let thread = std::thread::spawn(move || {
            assert!(restrict(&[cpu]) && yield_to_others(7));
            // SAFETY: the call reads a number of the calling thread.
            let niceness = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
            (allowed(), niceness)
        });
        assert_eq!(thread.join().unwrap(), (Some(vec![cpu]), 7));
    }

    fn is_blocked(signal: libc::c_int) -> bool {
        // SAFETY: an all-zero set is overwritten with the thread's mask before it is read.
        unsafe {
            let mut mask: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &mut mask);
            libc::sigismember(&mask, signal) == 1
        }
    }

    #[test]
    fn only_faults_reach_a_helper() {
        let others = [libc::SIGINT, libc::SIGALRM, libc::SIGUSR1, libc::SIGPROF];
        let thread = without_signals(|| {
            std::thread::spawn(move || {
                assert!(others.iter().all(|&signal| is_blocked(signal)));
                assert!(!FAULTS.iter().any(|&signal| is_blocked(signal)));
            })
        });
        thread.join().unwrap();
        assert!(!others.iter().any(|&signal| is_blocked(signal)));
    }
}
