//! Benchmarks of tidegate's hot functions, counted in instructions: `cargo bench --package tidegate-micro`. A package of
//! its own, so that nobody who builds tidegate builds its benchmarks.
