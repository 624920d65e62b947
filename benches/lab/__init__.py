"""What the benchmarks share: installing, starting, loading, measuring."""
