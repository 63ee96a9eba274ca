//! The small languages of a configuration: selection expressions and parameter mappings.
//!
//! Modules are declared from low to high; a module imports only modules that are declared above it.

pub mod expression;
