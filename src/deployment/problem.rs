/// Something wrong in the resources that were typed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Keys from the top of the configuration to the place, such as `["apis", "chat", "routes", "$connect", "target"]`.
    pub path: Vec<String>,
    /// What is wrong and what is allowed. One sentence, lower case, no final stop.
    pub message: String,
}

impl Problem {
    /// A problem at `path`.
    pub fn at<const N: usize>(path: [&str; N], message: impl Into<String>) -> Self {
        Problem { path: path.map(str::to_owned).to_vec(), message: message.into() }
    }
}
