//! Calls of rcl that r2r does not wrap: texts in both directions, and what rcl says where it refuses.

use std::ffi::{CStr, CString, c_char};

use r2r_rcl::{RCL_RET_OK, rcl_ret_t, rcutils_get_error_string, rcutils_reset_error};

use crate::node::{RosError, first_cause};

/// A name for rcl.
///
/// # Errors
/// When it holds a zero, which ends rcl's texts.
pub(crate) fn text(name: &str, doing: &'static str) -> Result<CString, RosError> {
    CString::new(name).map_err(|_| RosError::Rcl {
        doing,
        reason: format!("{name:?} is no name: it holds a zero"),
    })
}

/// A copy of a text of rcl's; empty where there is none.
///
/// # Safety
/// It is null, or ends in zero and is valid for the call.
pub(crate) unsafe fn words(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// An answer of rcl's as a result, with what it says of a failure. rcl keeps that for the thread until it is reset, and
/// complains of the next one otherwise.
///
/// # Errors
/// When the answer is another than `RCL_RET_OK`.
pub(crate) fn check(answer: rcl_ret_t, doing: &'static str) -> Result<(), RosError> {
    if u32::try_from(answer) == Ok(RCL_RET_OK) {
        return Ok(());
    }
    // SAFETY: neither takes a pointer; both are about this thread, whose last call of rcl has just failed.
    let said = unsafe {
        let said = rcutils_get_error_string();
        rcutils_reset_error();
        said
    };
    // SAFETY: the text is an array in `said` itself, and rcutils ends it in zero.
    let said = unsafe { words(said.str_.as_ptr()) };
    Err(RosError::Rcl {
        doing,
        reason: format!("{} ({})", first_cause(&said), r2r::Error::from_rcl_error(answer)),
    })
}
