//! What is pinned in a BPF file system.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// `BPF_OBJ_GET` (bpf(2)).
const OBJ_GET: libc::c_int = 7;

/// The part of `union bpf_attr` that it reads, of include/uapi/linux/bpf.h.
#[repr(C)]
struct Attributes {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// Opens a pinned object, whatever it is.
///
/// # Errors
///
/// There is none, or it must not be opened.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Attributes {
        path: path.as_ptr() as u64,
        descriptor: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads so many bytes, and the string that they point to; both live.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            OBJ_GET,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as libc::c_int) })
}
