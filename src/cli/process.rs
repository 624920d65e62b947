//! The limits and protections that this process asks of the operating system.
//!
//! Its memory holds a key. With [`close_memory`] no other program of the same user can read it: not
//! by tracing, not in `/proc`, not in a core dump. It does not stop root, nor the user who decides how
//! the program is started (which libraries are loaded into it, which file is run), nor keep memory
//! from being swapped out.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::failure::Failure;

/// Closes the memory to core dumps and, on Linux, to other programs of the user. To be called before
/// any secret is read; it does not survive that another program is run in place of this one.
pub(super) fn close_memory() -> Result<(), Failure> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let closed = setrlimit(Resource::Core, none).and_then(|()| refuse_tracers());
    closed.map_err(|cause| Failure::OpenMemory(cause.into()))
}

#[cfg(target_os = "linux")]
fn refuse_tracers() -> rustix::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

#[cfg(not(target_os = "linux"))]
fn refuse_tracers() -> rustix::io::Result<()> {
    Ok(())
}

/// Takes as many descriptors as this process may have: each connection is one. Where the system
/// gives no more, it stays with what it has.
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
