//! [`Problem`]: a mistake in the configuration, found while it is compiled.

/// A mistake in the resources that an author wrote, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Keys from the top of the configuration to the place, such as `["apis", "chat", "routes", "$connect", "target"]`.
    pub path: Vec<String>,
    /// The mistake and what is allowed instead: one sentence, lower case, no final stop.
    pub message: String,
}

impl Problem {
    /// Creates a problem at `path`.
    pub fn at<const N: usize>(path: [&str; N], message: impl Into<String>) -> Self {
        Problem { path: path.map(str::to_owned).to_vec(), message: message.into() }
    }
}
