//! Verification of Signature Version 4.
//!
//! The received request is signed again with the secret of the key that it names, and the two signatures are compared
//! in constant time. Pure code: the caller passes the time.
//!
//! The path is encoded twice, as AWS's SDKs do for `execute-api`. Some SDKs remove empty and dot segments from a path
//! before they sign it, and some do not, so both spellings are tried. Both lead to the same resource.
//!
//! Source: AWS, "Signing AWS API requests"; RFC 3986, section 5.2.4.
//!
//! Differs from AWS: a signature of any region is accepted. A presigned request without `X-Amz-Expires` is valid as
//! long as a request signed in its header: for the allowed clock skew.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4::SigningParams;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, Method, Uri};
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use tidegate_core::clock::Timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "execute-api";
const TERMINATOR: &str = "aws4_request";
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

const X_AMZ_DATE: &str = "x-amz-date";
const X_AMZ_SECURITY_TOKEN: &str = "x-amz-security-token";
const X_AMZ_CONTENT_SHA256: &str = "x-amz-content-sha256";

/// Largest difference between a signer's clock and the gateway's.
///
/// Source: AWS, "Signing AWS API requests".
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Longest lifetime of a presigned request.
const EXPIRES_MAX_SECONDS: u64 = 604_800;

/// Most headers that one signature covers.
const SIGNED_HEADERS_MAX: usize = 64;

const AMZ_DATE: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// The head of a request as it was received, before anything about it was changed.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
}

/// The reason why a signature is not valid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    #[error("the request is not signed")]
    Missing,
    /// Parts of the signature are missing, malformed or repeated.
    #[error("{0}")]
    Incomplete(Cow<'static, str>),
    /// The signature is for another service, not valid at this time, or does not cover what it must.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    #[error("the signature names an unknown key or has another key's session token")]
    UnknownKey,
    #[error("the temporary credentials of the signature have expired")]
    Expired,
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
}

/// A signature that is complete and valid at this time. It has not been compared yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) access_key_id: String,
    pub(super) session_token: Option<String>,
    region: String,
    signed_headers: Vec<String>,
    signature: String,
    moment: Timestamp,
}

/// Returns true if a request has a signature in its query string, even an incomplete one.
pub fn is_presigned(query: Option<&str>) -> bool {
    query_parameters(query).any(|(name, _)| name == "X-Amz-Signature" || name == "X-Amz-Algorithm")
}

/// The part of a signature that stands for the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// The signature does not cover the body, and says so in a signed header.
    Unsigned,
    /// Hash of the body in hexadecimal digits, from a header. The signature can be checked before the body is read, and
    /// the hash afterwards.
    Hash(String),
    /// No header stands for the body: the body is needed to check the signature.
    Body,
}

impl Payload {
    /// Reads the header that stands for the body.
    ///
    /// # Errors
    /// Returns [`SignatureError::Invalid`] if the header is neither a hash nor a signed `UNSIGNED-PAYLOAD`, and
    /// [`SignatureError::Incomplete`] if the header is repeated.
    pub(super) fn read(signature: &Signature, headers: &HeaderMap) -> Result<Self, SignatureError> {
        let is_digest = |hash: &str| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        match only(headers, X_AMZ_CONTENT_SHA256)? {
            None => Ok(Payload::Body),
            Some(UNSIGNED_PAYLOAD) if signature.signs(X_AMZ_CONTENT_SHA256) => Ok(Payload::Unsigned),
            Some(hash) if is_digest(hash) => Ok(Payload::Hash(hash.to_owned())),
            // A body without a hash is accepted only if the signature covers the header that says so.
            Some(_) => Err(not_the_hash()),
        }
    }

    /// Checks that `body` has the hash that the header names, if it names one.
    ///
    /// # Errors
    /// Returns [`SignatureError::Invalid`] if it has another hash.
    pub(super) fn check(&self, body: &[u8]) -> Result<(), SignatureError> {
        match self {
            Payload::Hash(hash) if !hash.eq_ignore_ascii_case(&hex(&Sha256::digest(body))) => Err(not_the_hash()),
            Payload::Hash(_) | Payload::Unsigned | Payload::Body => Ok(()),
        }
    }

    /// Returns the body as a signer signs it. `body` is used only if no header stands for it.
    pub(super) fn with(&self, body: &[u8]) -> SignableBody<'static> {
        match self {
            Payload::Unsigned => SignableBody::UnsignedPayload,
            Payload::Hash(hash) => SignableBody::Precomputed(hash.clone()),
            Payload::Body => SignableBody::Precomputed(hex(&Sha256::digest(body))),
        }
    }
}

fn not_the_hash() -> SignatureError {
    invalid("The value of 'x-amz-content-sha256' is not the hash of the body.")
}

impl Signature {
    /// Reads the signature of a request, and checks its time and the headers that it covers.
    pub(super) fn read(request: &Received<'_>, now: Timestamp) -> Result<Self, SignatureError> {
        let presigned = is_presigned(request.uri.query());
        let mut authorizations = request.headers.get_all(AUTHORIZATION).iter();
        let authorization = authorizations.next();
        if authorizations.next().is_some() {
            return Err(incomplete("there must be only one Authorization header"));
        }
        let (signature, expires) = match (authorization, presigned) {
            (None, false) => return Err(SignatureError::Missing),
            (Some(_), true) => {
                return Err(incomplete("a request is signed in its header or in its query, not in both"));
            }
            (Some(value), false) => {
                let text = value.to_str().map_err(|_| incomplete("the Authorization header is not ASCII"))?;
                (Self::of_header(text, request.headers)?, None)
            }
            (None, true) => Self::of_query(request.uri.query())?,
        };
        signature.check_time(expires, now)?;
        signature.check_headers(request.headers)?;
        Ok(signature)
    }

    fn of_header(authorization: &str, headers: &HeaderMap) -> Result<Self, SignatureError> {
        let (algorithm, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
        if algorithm != ALGORITHM {
            return Err(incomplete("Authorization header requires the algorithm 'AWS4-HMAC-SHA256'."));
        }
        let [mut credential, mut signed_headers, mut signature] = [None; 3];
        for part in rest.split(',') {
            let part = part.trim_matches(' ');
            let (name, value) = part.split_once('=').ok_or_else(|| {
                incomplete("Authorization header contains something that is not a key=value pair (missing equal-sign).")
            })?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(incomplete("Authorization header contains an unknown parameter.")),
            };
            if place.replace(value).is_some() {
                return Err(incomplete("Authorization header contains a parameter twice."));
            }
        }
        let required = |value: Option<&str>, message| {
            value.filter(|value| !value.is_empty()).map(str::to_owned).ok_or_else(|| incomplete(message))
        };
        let date = only(headers, X_AMZ_DATE)?
            .ok_or_else(|| incomplete("Authorization header requires existence of an 'X-Amz-Date' header."))?;
        Self::new(
            &required(credential, "Authorization header requires 'Credential' parameter.")?,
            &required(signed_headers, "Authorization header requires 'SignedHeaders' parameter.")?,
            required(signature, "Authorization header requires 'Signature' parameter.")?,
            date,
            only(headers, X_AMZ_SECURITY_TOKEN)?.map(str::to_owned),
        )
    }

    fn of_query(query: Option<&str>) -> Result<(Self, Option<u64>), SignatureError> {
        let find = |wanted: &str| {
            let mut values = query_parameters(query).filter(|(name, _)| name == wanted).map(|(_, value)| value);
            match (values.next(), values.next()) {
                (Some(_), Some(_)) => Err(incomplete("the query string contains a part of the signature twice")),
                (value, _) => Ok(value.map(Cow::into_owned)),
            }
        };
        let required = |name: &str, message: &'static str| {
            find(name)?.filter(|value| !value.is_empty()).ok_or_else(|| incomplete(message))
        };
        if required("X-Amz-Algorithm", "AWS query-string parameters must include 'X-Amz-Algorithm'.")? != ALGORITHM {
            return Err(incomplete("X-Amz-Algorithm must be 'AWS4-HMAC-SHA256'."));
        }
        let expires = match find("X-Amz-Expires")? {
            None => None,
            Some(text) => {
                let seconds = Some(text.as_str()).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let seconds = seconds.and_then(|text| text.parse().ok());
                let seconds = seconds.filter(|seconds| (1..=EXPIRES_MAX_SECONDS).contains(seconds));
                Some(seconds.ok_or_else(|| incomplete("X-Amz-Expires must be 1 to 604800 seconds."))?)
            }
        };
        let signature = Self::new(
            &required("X-Amz-Credential", "AWS query-string parameters must include 'X-Amz-Credential'.")?,
            &required("X-Amz-SignedHeaders", "AWS query-string parameters must include 'X-Amz-SignedHeaders'.")?,
            required("X-Amz-Signature", "AWS query-string parameters must include 'X-Amz-Signature'.")?,
            &required("X-Amz-Date", "AWS query-string parameters must include 'X-Amz-Date'.")?,
            find("X-Amz-Security-Token")?,
        )?;
        Ok((signature, expires))
    }

    fn new(
        credential: &str,
        signed_headers: &str,
        signature: String,
        date_time: &str,
        session_token: Option<String>,
    ) -> Result<Self, SignatureError> {
        let moment = moment(date_time).ok_or_else(|| incomplete("the date must be in ISO-8601 'basic format'."))?;
        let mut scope = credential.rsplitn(5, '/');
        let [terminator, service, region, date, access_key_id] = [(); 5].map(|()| scope.next().unwrap_or_default());
        if access_key_id.is_empty() || region.is_empty() {
            return Err(incomplete("Credential must have the form KEY/DATE/REGION/execute-api/aws4_request."));
        }
        if service != SERVICE {
            return Err(invalid("Credential should be scoped to correct service: 'execute-api'."));
        }
        if terminator != TERMINATOR {
            return Err(invalid("Credential should be scoped with a valid terminator: 'aws4_request'."));
        }
        if !date_time.starts_with(date) || date.len() != 8 {
            return Err(invalid("Date in Credential scope does not match the date of the request."));
        }
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if signature.len() != 64 || !signature.bytes().all(is_hex) {
            return Err(SignatureError::Mismatch);
        }
        Ok(Signature {
            access_key_id: access_key_id.to_owned(),
            session_token,
            region: region.to_owned(),
            signed_headers: signed_headers.split(';').map(str::to_owned).collect(),
            signature,
            moment,
        })
    }

    fn check_time(&self, expires: Option<u64>, now: Timestamp) -> Result<(), SignatureError> {
        let skew = u64::try_from(CLOCK_SKEW.as_millis()).unwrap_or(u64::MAX);
        let (moment, now) = (self.moment.millis(), now.millis());
        if moment > now.saturating_add(skew) {
            return Err(invalid("Signature not yet current: it is more than 5 min. ahead."));
        }
        let life = expires.map_or(skew, |seconds| seconds.saturating_mul(1000));
        if now > moment.saturating_add(life) {
            return Err(invalid("Signature expired: its time is over."));
        }
        Ok(())
    }

    /// Checks that the signed headers are in the request, in order, each once, and that `Host` and a session token are
    /// among them.
    fn check_headers(&self, headers: &HeaderMap) -> Result<(), SignatureError> {
        let names = &self.signed_headers;
        if names.len() > SIGNED_HEADERS_MAX || !names.is_sorted_by(|a, b| a < b) {
            return Err(invalid("SignedHeaders must be in order, each header once."));
        }
        if !names.iter().any(|name| name == HOST.as_str()) {
            return Err(invalid("'Host' must be a 'SignedHeader' in the AWS Authorization."));
        }
        for name in names {
            let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
            let is_there = is_lower && name != AUTHORIZATION.as_str() && headers.contains_key(name.as_str());
            if !is_there {
                return Err(SignatureError::Mismatch);
            }
        }
        for name in [HOST.as_str(), X_AMZ_DATE, X_AMZ_SECURITY_TOKEN, X_AMZ_CONTENT_SHA256] {
            only(headers, name)?;
        }
        if headers.contains_key(X_AMZ_SECURITY_TOKEN) && !self.signs(X_AMZ_SECURITY_TOKEN) {
            return Err(invalid("'X-Amz-Security-Token' must be a 'SignedHeader' in the AWS Authorization."));
        }
        Ok(())
    }

    /// Checks that the signature covers a header.
    ///
    /// # Errors
    /// Returns [`SignatureError::Invalid`] if it does not: an intermediary could have added or changed the header.
    pub(super) fn check_signs(&self, name: &HeaderName) -> Result<(), SignatureError> {
        match self.signs(name.as_str()) {
            true => Ok(()),
            false => Err(SignatureError::Invalid(
                format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.").into(),
            )),
        }
    }

    fn signs(&self, name: &str) -> bool {
        self.signed_headers.iter().any(|signed| signed == name)
    }

    /// Returns true if the request was signed with `secret` and `payload`.
    ///
    /// The cost depends on the request alone, not on the secret or on where the two signatures differ.
    pub(super) fn is_of(
        &self,
        secret: &str,
        request: &Received<'_>,
        payload: &SignableBody<'static>,
    ) -> Result<bool, SignatureError> {
        let mut is_right = subtle::Choice::from(0);
        for normalization in [UriPathNormalizationMode::Enabled, UriPathNormalizationMode::Disabled] {
            let calculated =
                self.calculate(secret, request, payload.clone(), normalization).ok_or(SignatureError::Mismatch)?;
            is_right |= calculated.as_bytes().ct_eq(self.signature.as_bytes());
        }
        Ok(is_right.into())
    }

    fn calculate(
        &self,
        secret: &str,
        request: &Received<'_>,
        body: SignableBody<'_>,
        normalization: UriPathNormalizationMode,
    ) -> Option<String> {
        let mut headers = Vec::with_capacity(self.signed_headers.len());
        for name in &self.signed_headers {
            for value in request.headers.get_all(name.as_str()) {
                headers.push((name.as_str(), std::str::from_utf8(value.as_bytes()).ok()?));
            }
        }
        let host = only(request.headers, HOST.as_str()).ok().flatten()?;
        let query = without_signature(request.uri.query())?;
        let separator = if query.is_empty() { "" } else { "?" };
        let uri = format!("http://{host}{}{separator}{query}", request.uri.path());
        // The crate panics on a request without an authority. An invalid host gives a URI that does not parse, or one
        // whose path begins elsewhere.
        let parsed: Uri = uri.parse().ok()?;
        parsed.authority().filter(|_| parsed.path() == request.uri.path())?;
        let signable = SignableRequest::new(request.method.as_str(), uri, headers.into_iter(), body).ok()?;
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Double;
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        settings.uri_path_normalization_mode = normalization;
        // The crate adds the date as a header; a presigned request has it in its query instead.
        let adds_date = !self.signs(X_AMZ_DATE);
        settings.excluded_headers = Some(adds_date.then_some(Cow::Borrowed(X_AMZ_DATE)).into_iter().collect());
        let identity = Credentials::new(&*self.access_key_id, secret, None, None, "tidegate").into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(UNIX_EPOCH + Duration::from_millis(self.moment.millis()))
            .settings(settings)
            .build()
            .ok()?;
        sign(signable, &params.into()).ok().map(|output| output.signature().to_owned())
    }
}

fn incomplete(message: &'static str) -> SignatureError {
    SignatureError::Incomplete(message.into())
}

fn invalid(message: &'static str) -> SignatureError {
    SignatureError::Invalid(message.into())
}

/// Returns the value of a header, if the request has the header.
///
/// # Errors
/// Returns [`SignatureError::Incomplete`] if the header is repeated or not ASCII.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, SignatureError> {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return Ok(None) };
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(incomplete("a header that the signature needs is repeated")),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| incomplete("a header of the signature is not ASCII"))
        }
        (None, None) => Ok(None),
    }
}

fn query_parameters(query: Option<&str>) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
}

/// Removes the signature from a raw query string. Returns `None` if the query string is not UTF-8, because then it has
/// two spellings.
fn without_signature(query: Option<&str>) -> Option<String> {
    let query = query.unwrap_or_default();
    percent_decode_str(query).decode_utf8().ok()?;
    let is_signature = |pair: &&str| query_parameters(Some(pair)).any(|(name, _)| name == "X-Amz-Signature");
    Some(query.split('&').filter(|pair| !is_signature(pair)).collect::<Vec<_>>().join("&"))
}

/// Parses a time in the form of `X-Amz-Date`: `20261120T120000Z`.
pub fn moment(date_time: &str) -> Option<Timestamp> {
    let moment = PrimitiveDateTime::parse(date_time, AMZ_DATE).ok()?.assume_utc().unix_timestamp();
    u64::try_from(moment).ok().and_then(|seconds| seconds.checked_mul(1000)).map(Timestamp)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
