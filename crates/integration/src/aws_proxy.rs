use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};

use super::call::{Answer, Called, IntegrationError, IntegrationRequest, refuse_redirect};
use super::compiler::Compiler;
use super::http_request::HttpRequest;
use super::http_target::HttpTarget;
use super::proxy_answer::{self, ProxyAnswer, ProxyAnswerError};
use super::proxy_event::proxy_event;
use tidegate_http::http_client::{self, HttpClient};

/// Name of the header that a Lambda runtime sets when the function failed.
const FUNCTION_ERROR: &str = "x-amz-function-error";

/// An `AWS_PROXY` integration: the backend gets the Lambda proxy event and answers `{"statusCode":…}`.
#[derive(Debug)]
pub(super) struct AwsProxy {
    pub(super) target: HttpTarget,
}

impl AwsProxy {
    /// Reports every setting that this type does not support.
    pub(super) fn check(compiler: &mut Compiler<'_>, settings: &tidegate_resources::Integration, method: &Method) {
        if *method != Method::POST {
            compiler.problem("integrationMethod", "an AWS_PROXY integration is always called with `POST`");
        }
        if !settings.request_parameters.is_empty() {
            compiler.problem(
                "requestParameters",
                "an AWS_PROXY integration cannot map parameters, since its event holds them all; use HTTP_PROXY",
            );
        }
    }

    /// Sends the event and reads the answer.
    pub(super) async fn call(
        &self,
        http_client: &HttpClient,
        request: &IntegrationRequest<'_>,
        timeout: Duration,
    ) -> Called {
        let IntegrationRequest { context, stage_variables, handshake, payload } = *request;
        let http_request = || {
            let mut headers = HeaderMap::with_capacity(16);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let body = proxy_event(context, stage_variables, handshake, payload).into();
            let path_and_query = self.target.path_and_query.clone();
            HttpRequest { path_and_query, headers, body, left_out: false }
        };
        let answer = self.target.send(http_client, &Method::POST, http_request, context, timeout).await;
        Called { outcome: answer.and_then(read_answer), left_out: false }
    }
}

fn read_answer(answer: http_client::Answer) -> Result<Answer, IntegrationError> {
    let http_client::Answer { status, headers, body } = refuse_redirect(answer)?;
    if !status.is_success() {
        let answer = Answer { status, headers, body: Some(body), tidegate: None, unknown_key: None };
        return Err(IntegrationError::Refused(Box::new(answer)));
    }
    if headers.contains_key(FUNCTION_ERROR) {
        return Err(IntegrationError::Function);
    }
    match proxy_answer::parse(&body) {
        Ok(ProxyAnswer { status, headers, body, tidegate, unknown_key }) => {
            Ok(Answer { status, headers, body, tidegate, unknown_key })
        }
        Err(ProxyAnswerError::Function) => Err(IntegrationError::Function),
        Err(error) => Err(IntegrationError::Unreadable(error)),
    }
}
