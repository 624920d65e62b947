//! Reading secrets: what is read is wiped, wherever it was.

use std::{
    fs::File,
    io::{self, Read, stdin},
    os::fd::AsFd,
};

use zeroize::Zeroizing;

/// Reads to the end, or to this many bytes.
pub(super) fn read(source: impl Read, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // With room to spare from the beginning, what is read is never moved, which would leave a copy.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 64));
    source.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Standard input, without the buffer of the standard library, which is never wiped.
pub(super) fn input() -> io::Result<File> {
    stdin().as_fd().try_clone_to_owned().map(File::from)
}
