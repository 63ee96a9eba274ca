use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};

use super::call::{Answer, Called, IntegrationError, IntegrationRequest, refuse_redirect};
use super::compiler::Compiler;
use super::http_request::http_request;
use super::http_target::HttpTarget;
use tidegate_http::http_client::{self, HttpClient};
use tidegate_language::expression::{Destination, Source, TakenNames};

/// An `HTTP_PROXY` integration: the backend gets the message itself, and its HTTP answer is the outcome.
#[derive(Debug)]
pub(super) struct HttpProxy {
    pub(super) target: HttpTarget,
    pub(super) method: Method,
    /// The parsed `requestParameters`: names at the backend, and their sources.
    pub(super) parameters: Vec<(Destination, Source)>,
    /// The names of the parameters and of the query string in the integration's own URL. A client's header or query
    /// parameter with one of these names is not passed on.
    taken: TakenNames,
}

impl HttpProxy {
    pub(super) fn new(target: HttpTarget, method: Method, parameters: Vec<(Destination, Source)>) -> Self {
        let destinations = parameters.iter().map(|(destination, _)| destination);
        let taken = TakenNames::new(target.path_and_query.query(), destinations);
        HttpProxy { target, method, parameters, taken }
    }

    /// Parses `requestParameters`, and reports every problem.
    pub(super) fn parameters(
        compiler: &mut Compiler<'_>,
        settings: &tidegate_resources::Integration,
    ) -> Vec<(Destination, Source)> {
        let mut parameters = Vec::with_capacity(settings.request_parameters.len());
        for (name, text) in &settings.request_parameters {
            let destination =
                Destination::parse(name).map_err(|error| compiler.parameter_problem(name, error.to_string()));
            let source = Source::parse(text).map_err(|error| compiler.parameter_problem(name, error.to_string()));
            if let (Ok(destination), Ok(source)) = (destination, source) {
                parameters.push((destination, source));
            }
        }
        parameters
    }

    /// Sends the message and returns the backend's HTTP answer.
    pub(super) async fn call(
        &self,
        http_client: &HttpClient,
        request: &IntegrationRequest<'_>,
        timeout: Duration,
    ) -> Called {
        let mut left_out = false;
        let http_request = || {
            let request = http_request(&self.target.path_and_query, &self.parameters, &self.taken, request);
            left_out = request.left_out;
            request
        };
        let answer = self.target.send(http_client, &self.method, http_request, request.context, timeout).await;
        Called { outcome: answer.and_then(read_answer), left_out }
    }
}

fn read_answer(answer: http_client::Answer) -> Result<Answer, IntegrationError> {
    let http_client::Answer { status, headers, body } = refuse_redirect(answer)?;
    let body = Some(body).filter(|body| !body.is_empty() || is_empty_text(status, &headers));
    Ok(Answer { status, headers, body, tidegate: None, unknown_key: None })
}

/// Returns true if an answer with an empty body means the empty text and not the absence of one: it has a
/// `Content-Type`, and a status that allows content.
fn is_empty_text(status: StatusCode, headers: &HeaderMap) -> bool {
    let has_no_content = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
    headers.contains_key(CONTENT_TYPE) && !has_no_content.contains(&status)
}
