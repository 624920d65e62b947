//! What one bare signature of a 32-byte digest costs, in µs of CPU time: the least that a proxy can
//! cost that signs. Prints the number alone.

use std::hint::black_box;

use k256::{ecdsa::SigningKey, elliptic_curve::Generate};
use rustix::time::{ClockId, clock_gettime};

/// Enough for half a second.
const SIGNATURES: u32 = 8_000;

/// Tables and caches fill.
const WARM_UP: u32 = 500;

fn main() {
    let key = SigningKey::generate();
    sign(&key, WARM_UP);
    let begun = cpu_micros();
    sign(&key, SIGNATURES);
    println!("{:.2}", (cpu_micros() - begun) / f64::from(SIGNATURES));
}

/// Each digest is another, as each message is.
fn sign(key: &SigningKey, times: u32) {
    let mut digest = [7; 32];
    for n in 0..times {
        digest[..4].copy_from_slice(&n.to_le_bytes());
        let (signature, id) = key.sign_prehash_recoverable(black_box(&digest));
        black_box((signature.to_bytes(), id.to_byte()));
    }
}

/// The CPU time of this thread, user and system: on a busy machine, wall time would count others'.
fn cpu_micros() -> f64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as f64 * 1e6 + spent.tv_nsec as f64 / 1e3
}
