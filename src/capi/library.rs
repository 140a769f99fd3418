//! What this library is: version, ABI, build.

use std::ffi::{CString, c_char};
use std::mem::offset_of;
use std::sync::OnceLock;

use super::guard::guard;
use super::options::{OutStruct, Struct};
use super::status::LIGHTGPT_OK;
use crate::error::{Code, Error};
use crate::kernel;

/// The number of the ABI that this header describes. It changes when a program that was compiled
/// against an older header could no longer run; the soname carries the same number.
pub const LIGHTGPT_ABI_VERSION: u32 = 0;

/// Facts about the library that is running. The texts are constants.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_build {
    /// Set by the caller: sizeof(lightgpt_build).
    pub struct_size: u32,
    /// See LIGHTGPT_ABI_VERSION.
    pub abi_version: u32,
    /// Libraries with the same number compute the same bits from the same model and tokens.
    pub numerics_version: u32,
    /// Zero.
    pub reserved: u32,
    /// "0.1.0" and the like.
    pub version: *const c_char,
    /// The name of the instruction set that is in use, such as "scalar".
    pub isa: *const c_char,
    /// The optional parts that this build contains, separated by blanks; may be "".
    pub features: *const c_char,
}

// SAFETY: as the trait asks; NULL pointers are all zeros.
unsafe impl Struct for lightgpt_build {
    const SIZE_MIN: usize = offset_of!(Self, features) + size_of::<*const c_char>();
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// The version of the library that is running, such as "0.1.0"; compare LIGHTGPT_VERSION, which is
/// that of the header.
///
/// Never NULL, a constant. Any thread; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_version() -> *const c_char {
    VERSION.as_ptr().cast()
}

/// The ABI number of the library that is running.
///
/// Any thread; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_abi_version() -> u32 {
    LIGHTGPT_ABI_VERSION
}

/// Whether the library that is running fits the header that the program was compiled with: pass
/// LIGHTGPT_ABI_VERSION. Of use where the library is loaded at run time.
///
/// Any thread. Errors: LIGHTGPT_ABI_MISMATCH.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_abi_check(abi_version: u32) -> i32 {
    guard(|| {
        if abi_version == LIGHTGPT_ABI_VERSION {
            return Ok(LIGHTGPT_OK);
        }
        let message = format!(
            "the program was compiled for ABI {abi_version}, this library has {LIGHTGPT_ABI_VERSION}"
        );
        Err(Error::new(Code::AbiMismatch, "", message))
    })
}

/// Fills in the facts about the library that is running.
///
/// build: not NULL, initialised with LIGHTGPT_BUILD_INIT. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_build_info(build: *mut lightgpt_build) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a struct as large as it says.
        let out = unsafe { OutStruct::new(build, "build") }?;
        out.set(&lightgpt_build {
            struct_size: 0,
            abi_version: LIGHTGPT_ABI_VERSION,
            numerics_version: crate::NUMERICS_VERSION,
            reserved: 0,
            version: lightgpt_version(),
            isa: isa(),
            features: c"".as_ptr(),
        });
        Ok(LIGHTGPT_OK)
    })
}

/// The name of the instruction set in use, made once.
fn isa() -> *const c_char {
    static NAME: OnceLock<CString> = OnceLock::new();
    let name = || CString::new(kernel::detect().isa().name()).unwrap_or_default();
    NAME.get_or_init(name).as_ptr()
}
