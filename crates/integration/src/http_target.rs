use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Method, Uri};

use super::call::IntegrationError;
use super::compiler::Compiler;
use super::context_headers::add_context_headers;
use super::http_request::HttpRequest;
use tidegate_core::error_chain::chain;
use tidegate_core::limits::quota::ANSWER_MAX_BYTES;
use tidegate_core::request_context::RequestContext;
use tidegate_http::http_client::{Answer, Backend, BackendOptions, Call, HttpClient};
use tidegate_http::signing::RequestSigner;
use tidegate_http::tls::{CertificateFiles, ClientTls};
use tidegate_language::expression::UriTemplate;

/// The backend that an integration calls over HTTP: its connection pool, the path, and the signature.
#[derive(Debug)]
pub(super) struct HttpTarget {
    backend: Arc<Backend>,
    pub(super) path_and_query: PathAndQuery,
    /// Idle timeout of connections to the backend in ms, if the integration sets one.
    connection_idle_millis: Option<u32>,
    /// Signer of calls, which proves to the backend that they come from the gateway.
    signer: Option<RequestSigner>,
}

/// A target before a stage fills in the variables of its URI.
pub(super) struct HttpTargetDraft<'a> {
    settings: &'a tidegate_resources::Integration,
    template: UriTemplate,
    tls: Option<Arc<ClientTls>>,
    signer: Option<RequestSigner>,
}

impl HttpTarget {
    /// Sends one call within `timeout` and returns the answer, whatever its status. `request` makes the request, and is
    /// called again if the request has to be sent again.
    ///
    /// # Errors
    /// Returns [`IntegrationError::Call`] if there is no whole answer in time.
    pub(super) async fn send(
        &self,
        http_client: &HttpClient,
        method: &Method,
        mut request: impl FnMut() -> HttpRequest,
        context: &RequestContext<'_>,
        timeout: Duration,
    ) -> Result<Answer, IntegrationError> {
        let call = || {
            let HttpRequest { path_and_query, mut headers, body, left_out: _ } = request();
            add_context_headers(&mut headers, context, context.event.event_type());
            if let Some(signer) = &self.signer {
                signer.sign(&mut headers, context.request_id.as_str(), context.request_time, &body);
            }
            let method = method.clone();
            Call { method, path_and_query, headers, body, timeout, answer_max_bytes: ANSWER_MAX_BYTES }
        };
        http_client.send(&self.backend, call).await.map_err(IntegrationError::Call)
    }

    pub(super) fn reset_connection_idle(&self) {
        self.backend.reset_connection_idle();
    }

    pub(super) fn lower_connection_idle(&self) {
        self.connection_idle_millis.iter().for_each(|millis| self.backend.lower_connection_idle(*millis));
    }

    pub(super) fn is_saturated(&self) -> bool {
        self.backend.is_saturated()
    }

    pub(super) fn origin(&self) -> String {
        self.backend.origin()
    }

    pub(super) fn url(&self) -> String {
        format!("{}{}", self.origin(), self.path_and_query)
    }
}

impl<'a> HttpTargetDraft<'a> {
    /// Checks everything that does not depend on a stage. Returns `None` if it has reported a problem.
    pub(super) fn new(compiler: &mut Compiler<'_>, settings: &'a tidegate_resources::Integration) -> Option<Self> {
        let template = UriTemplate::parse(&settings.integration_uri)
            .map_err(|error| compiler.problem("integrationUri", error.to_string()));
        let tls = tls(compiler, settings);
        let signer = signer(compiler, settings);
        Some(HttpTargetDraft { settings, template: template.ok()?, tls: tls?, signer: signer? })
    }

    /// Fills in the variables of the stage `stage_name`. Returns `None` if it has reported a problem.
    pub(super) fn compile(
        &self,
        compiler: &mut Compiler<'_>,
        stage_name: &str,
        variables: &BTreeMap<String, String>,
    ) -> Option<HttpTarget> {
        let mut problem = |message: String| compiler.problem("integrationUri", message);
        let text = match self.template.resolve(variables) {
            Ok(text) => text,
            Err(missing) => {
                problem(format!("stage `{stage_name}` has no variable `{}`", missing.0));
                return None;
            }
        };
        let Some(uri) = backend_uri(&text) else {
            problem(format!("`{text}` is not an `http://` or `https://` URL with a host (in stage `{stage_name}`)"));
            return None;
        };
        if let Err(error) = self.template.check_host(variables) {
            problem(format!("{error} (in stage `{stage_name}`)"));
            return None;
        }
        if self.tls.is_some() && uri.scheme_str() != Some("https") {
            problem(format!("`tlsConfig` is allowed only for `https://` URLs (in stage `{stage_name}`)"));
            return None;
        }
        let max_connections = usize::try_from(self.settings.max_connections).unwrap_or(usize::MAX);
        let options = BackendOptions { http2: self.settings.http2, max_connections, tls: self.tls.clone() };
        match compiler.http_client.backend_with(&uri, options) {
            Ok(backend) => Some(HttpTarget {
                backend,
                path_and_query: uri.path_and_query().cloned()?,
                connection_idle_millis: self.settings.connection_idle_millis,
                signer: self.signer.clone(),
            }),
            Err(error) => {
                compiler.problem("integrationUri", error.to_string());
                None
            }
        }
    }
}

/// Reads the TLS settings, if there are any. The outer `Option` is `None` if it has reported a problem.
fn tls(compiler: &mut Compiler<'_>, settings: &tidegate_resources::Integration) -> Option<Option<Arc<ClientTls>>> {
    let Some(tls) = &settings.tls_config else { return Some(None) };
    let identity = match (&tls.client_certificate, &tls.client_key) {
        (Some(certificate), Some(key)) => {
            Some(CertificateFiles { certificate: certificate.clone(), private_key: key.clone() })
        }
        (None, None) => None,
        _ => {
            compiler.problem("tlsConfig", "`clientCertificate` and `clientKey` must be set together");
            return None;
        }
    };
    let server_name = tls.server_name_to_verify.as_deref();
    match compiler.http_client.tls(tls.ca_file.as_ref(), identity.as_ref(), server_name) {
        Ok(tls) => Some(Some(Arc::new(tls))),
        Err(error) => {
            compiler.problem("tlsConfig", chain(&error).to_string());
            None
        }
    }
}

/// Builds the signer, if `signing` is set. The outer `Option` is `None` if it has reported a problem.
fn signer(compiler: &mut Compiler<'_>, settings: &tidegate_resources::Integration) -> Option<Option<RequestSigner>> {
    let Some(signing) = &settings.signing else { return Some(None) };
    match RequestSigner::new(&signing.secrets) {
        Ok(signer) => Some(Some(signer)),
        Err(error) => {
            compiler.problem("signing", error.to_string());
            None
        }
    }
}

/// Parses the URL of a backend. Returns `None` unless it is an absolute http or https URL without a user name.
fn backend_uri(text: &str) -> Option<Uri> {
    let uri = text.parse::<Uri>().ok()?;
    let authority = uri.authority()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = !authority.as_str().contains('@') && !authority.host().is_empty();
    (is_http && plain && uri.path_and_query().is_some()).then_some(uri)
}
