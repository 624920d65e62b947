//! What each step of a call costs, and the whole.
//!
//! `cargo bench --features jemalloc --bench steps` runs all, and tells what changed since the last
//! time; with a word behind `--`, it runs those with that word in their names.

#![allow(clippy::unwrap_used)]

mod call;
mod canonical;
mod signing;
mod store;

use std::time::Duration;

use criterion::Criterion;

// As in the program.
#[cfg(all(feature = "jemalloc", target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let criterion = Criterion::default().warm_up_time(Duration::from_secs(1));
    let mut criterion = criterion.measurement_time(Duration::from_secs(3)).configure_from_args();
    canonical::bench(&mut criterion);
    signing::bench(&mut criterion);
    store::bench(&mut criterion);
    call::bench(&mut criterion);
    criterion.final_summary();
}
