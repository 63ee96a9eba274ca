//! Real programs beside the gateway: browsers, SDKs, examples, what runs in containers, and processes that die.

#[path = "../browser/mod.rs"]
mod browser;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../process/mod.rs"]
mod process;

mod chaos;
mod container;
mod demo_page;
mod examples;
mod sdk_javascript;
mod sdk_python;
