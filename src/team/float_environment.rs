//! The float control word: the default while our code runs, the host's own outside.
//!
//! A host may flush denormals or round differently; threads inherit that. The same bits everywhere
//! need the default word, and the host finds its own again, sticky flags included.

use std::marker::PhantomData;

/// While this value lives, the thread's float control word is the default.
#[derive(Debug)]
pub struct FloatEnvironment {
    host: Word,
    /// The word belongs to the thread.
    not_send: PhantomData<*const ()>,
}

impl FloatEnvironment {
    /// Sets the default word and remembers the host's.
    pub fn enter() -> Self {
        let host = read();
        write(DEFAULT);
        Self {
            host,
            not_send: PhantomData,
        }
    }

    /// Runs a callback of the host under the host's own word.
    pub fn outside<R>(&mut self, callback: impl FnOnce() -> R) -> R {
        struct Inside<'a>(&'a mut FloatEnvironment);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                self.0.host = read();
                write(DEFAULT);
            }
        }
        write(self.host);
        let _inside = Inside(self);
        callback()
    }
}

impl Drop for FloatEnvironment {
    fn drop(&mut self) {
        write(self.host);
    }
}

#[cfg(target_arch = "x86_64")]
mod word {
    pub type Word = u32;

    /// MXCSR: all exceptions masked, round to nearest, denormals kept.
    pub const DEFAULT: Word = 0x1F80;

    pub fn read() -> Word {
        let mut word: Word = 0;
        // SAFETY: stores the 4 bytes of MXCSR to a local.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut word, options(nostack)) };
        word
    }

    pub fn write(word: Word) {
        // SAFETY: loads a word that is the default or was read from the register before.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &word, options(nostack, readonly)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod word {
    /// FPCR, the control word, and FPSR, the sticky flags.
    pub type Word = [u64; 2];

    /// Round to nearest, denormals kept, default NaN off, no traps; no flags.
    pub const DEFAULT: Word = [0; 2];

    pub fn read() -> Word {
        let (control, status): (u64, u64);
        // SAFETY: reads two registers.
        unsafe {
            std::arch::asm!(
                "mrs {}, fpcr",
                "mrs {}, fpsr",
                out(reg) control,
                out(reg) status,
                options(nomem, nostack)
            );
        }
        [control, status]
    }

    pub fn write([control, status]: Word) {
        // SAFETY: writes words that are the default or were read from the registers before.
        unsafe {
            std::arch::asm!(
                "msr fpcr, {}",
                "msr fpsr, {}",
                in(reg) control,
                in(reg) status,
                options(nostack)
            );
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod word {
    pub type Word = ();
    pub const DEFAULT: Word = ();
    pub fn read() -> Word {}
    pub fn write(_: Word) {}
}

use word::{DEFAULT, Word, read, write};

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;

    /// Flush denormals, and a sticky flag of the host's.
    #[cfg(target_arch = "x86_64")]
    const HOST: Word = 0x9FC0 | 1 << 4;
    #[cfg(target_arch = "aarch64")]
    const HOST: Word = [1 << 24, 1 << 2];

    #[test]
    fn the_host_keeps_its_word() {
        let before = read();
        write(HOST);
        let mut environment = FloatEnvironment::enter();
        let inside = read();
        environment.outside(|| assert_eq!(read(), HOST));
        let again = read();
        // A sticky flag of ours.
        std::hint::black_box(std::hint::black_box(1.0f32) / 3.0);
        drop(environment);
        let after = read();
        write(before);
        assert_eq!((inside, again, after), (DEFAULT, DEFAULT, HOST));
    }
}
