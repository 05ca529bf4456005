//! Benchmarks against real peers: interleaved rounds on loopback, medians, one report each. They never judge single times.
pub(crate) mod edge;
mod process;
