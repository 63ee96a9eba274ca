//! deployment
mod problem;

pub use problem::Problem;
