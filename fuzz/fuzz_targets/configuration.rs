//! Any text as a configuration file: it loads or has problems, each at a line of the text, and never a panic.
//!
//! Input: the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::config;

fuzz_target!(|input: &str| {
    let environment = |name: &str| (name == "A").then(|| "1".to_owned());
    match config::load(input, &environment) {
        Ok(_) => {}
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a problem");
            let lines = input.split(['\n', '\r']).count();
            for problem in problems {
                assert!(problem.line <= lines + 1, "a problem beyond the end: {problem:?}");
            }
        }
    }
});
