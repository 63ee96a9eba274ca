//! Real programs beside the gateway: browsers, SDKs, examples, what runs in containers, and processes that die.

mod chaos;
mod container;
mod demo_page;
mod examples;
mod sdk_javascript;
mod sdk_python;
