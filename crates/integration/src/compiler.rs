use tidegate_core::problem::Problem;
use tidegate_http::http_client::HttpClient;

/// The integration that is being compiled, and the list of its problems.
pub(super) struct Compiler<'a> {
    pub(super) http_client: &'a HttpClient,
    pub(super) api_id: &'a str,
    pub(super) id: &'a str,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Compiler<'_> {
    /// Adds a problem with one field of the integration.
    pub(super) fn problem(&mut self, field: &str, message: impl Into<String>) {
        self.problems.push(Problem::at(["apis", self.api_id, "integrations", self.id, field], message));
    }

    /// Adds a problem with one entry of `requestParameters`.
    pub(super) fn parameter_problem(&mut self, name: &str, message: impl Into<String>) {
        let path = ["apis", self.api_id, "integrations", self.id, "requestParameters", name];
        self.problems.push(Problem::at(path, message));
    }
}
