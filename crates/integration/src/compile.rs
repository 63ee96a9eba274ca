use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;

use super::aws_proxy::AwsProxy;
use super::compiled::{Integration, IntegrationKind};
use super::compiler::Compiler;
use super::http_proxy::HttpProxy;
use super::http_target::HttpTargetDraft;
use tidegate_core::problem::Problem;
use tidegate_http::http_client::HttpClient;
use tidegate_language::expression::{Destination, Source};
use tidegate_resources::IntegrationType;
use tidegate_telemetry::RepeatedWarning;

/// An integration of an API before a stage fills in its variables.
pub struct IntegrationDraft<'a> {
    api_id: &'a str,
    id: &'a str,
    settings: &'a tidegate_resources::Integration,
    target: HttpTargetDraft<'a>,
    kind: KindDraft,
}

/// The parts of each type that do not depend on a stage.
enum KindDraft {
    AwsProxy,
    HttpProxy { method: Method, parameters: Vec<(Destination, Source)> },
}

impl<'a> IntegrationDraft<'a> {
    /// Checks everything that does not depend on a stage. Returns `None` if it has added a problem to `problems`.
    ///
    /// `timeout_max_millis` is `limits.integrationTimeoutMillis`.
    pub fn new(
        (api_id, id): (&'a str, &'a str),
        settings: &'a tidegate_resources::Integration,
        http_client: &HttpClient,
        timeout_max_millis: u32,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let mut compiler = Compiler { http_client, api_id, id, problems };
        let method = method(&mut compiler, settings);
        if settings.timeout_in_millis > timeout_max_millis {
            let asked = settings.timeout_in_millis;
            compiler.problem(
                "timeoutInMillis",
                format!(
                    "{asked} is more than `limits.integrationTimeoutMillis` allows; allowed: 50 to {timeout_max_millis}"
                ),
            );
        }
        let kind = match settings.integration_type {
            IntegrationType::AwsProxy => {
                AwsProxy::check(&mut compiler, settings, method.as_ref().unwrap_or(&Method::POST));
                Some(KindDraft::AwsProxy)
            }
            IntegrationType::HttpProxy => {
                let parameters = HttpProxy::parameters(&mut compiler, settings);
                method.map(|method| KindDraft::HttpProxy { method, parameters })
            }
        };
        let target = HttpTargetDraft::new(&mut compiler, settings);
        Some(IntegrationDraft { api_id, id, settings, target: target?, kind: kind? })
    }

    /// Fills in `variables`, the stage variables of `stage_name`. Returns `None` if it has added a problem to
    /// `problems`.
    pub fn compile(
        &self,
        stage_name: &str,
        variables: &BTreeMap<String, String>,
        http_client: &HttpClient,
        problems: &mut Vec<Problem>,
    ) -> Option<Integration> {
        let mut compiler = Compiler { http_client, api_id: self.api_id, id: self.id, problems };
        let target = self.target.compile(&mut compiler, stage_name, variables)?;
        let kind = match &self.kind {
            KindDraft::AwsProxy => IntegrationKind::AwsProxy(AwsProxy { target }),
            KindDraft::HttpProxy { method, parameters } => {
                let (method, parameters) = (method.clone(), parameters.clone());
                IntegrationKind::HttpProxy(HttpProxy::new(target, method, parameters))
            }
        };
        let timeout = Duration::from_millis(self.settings.timeout_in_millis.into());
        Some(Integration { id: self.id.into(), timeout, unknown_keys: RepeatedWarning::default(), kind })
    }
}

fn method(compiler: &mut Compiler<'_>, settings: &tidegate_resources::Integration) -> Option<Method> {
    let text = settings.integration_method.as_deref().unwrap_or("POST");
    match text.parse::<Method>() {
        Ok(Method::CONNECT) | Err(_) => {
            compiler.problem("integrationMethod", format!("`{text}` is not an HTTP method such as `POST` or `PUT`"));
            None
        }
        Ok(method) => Some(method),
    }
}
