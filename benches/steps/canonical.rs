//! Canonical JSON of a body, and the hash of it.

use agentpmt_proxy::json::CanonicalJson;
use criterion::{BenchmarkId, Criterion, Throughput};

/// A short proof, a long one, and the longest body that is taken.
const SIZES: [(&str, usize); 3] = [("50 B", 50), ("4 KiB", 4 << 10), ("256 KiB", 256 << 10)];

/// A node of a workflow, with what takes work: order, escapes, other letters, a float.
const NODE: &str = r#"{"label": "Sort «new» tickets\n", "id": 17, "at": {"y": 120, "x": 40.5}}, "#;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("canonical_json");
    for (name, size) in SIZES {
        let body = body(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), body.as_bytes(), |b, body| {
            b.iter(|| CanonicalJson::parse(body).unwrap());
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("payload_hash");
    for (name, size) in SIZES {
        let payload = CanonicalJson::parse(body(size).as_bytes()).unwrap();
        group.throughput(Throughput::Bytes(payload.as_str().len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &payload, |b, payload| {
            b.iter(|| payload.hash());
        });
    }
    group.finish();
}

/// A body of so many bytes, as indented by a program.
pub(crate) fn body(size: usize) -> String {
    let frame = r#"{"nodes": [0], "proof_text": ""}"#.len();
    let nodes = NODE.repeat((size - frame) / NODE.len());
    let proof = ".".repeat(size - frame - nodes.len());
    format!(r#"{{"nodes": [{nodes}0], "proof_text": "{proof}"}}"#)
}
