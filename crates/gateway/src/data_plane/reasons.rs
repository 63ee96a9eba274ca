//! The reason code of each error, for operators and metrics.

use super::{ConnectError, ConnectionsApiError, MessageError, RoutingError};
use tidegate_access::authorizer::Denial;
use tidegate_access::iam::{IamError, SignatureError};
use tidegate_access::usage::UsageExceeded;
use tidegate_core::limits::ThrottleLevel;
use tidegate_http::http_client::CallError;
use tidegate_integration::IntegrationError;
use tidegate_telemetry::{AuthorizerOutcome, ConnectOutcome, PushOutcome, Reason};

impl RoutingError {
    /// Returns the reason code of this error. `forbidden` is the code behind AWS's 403, which hides the reason.
    pub fn reason(&self, forbidden: Reason) -> Reason {
        match self {
            RoutingError::Forbidden => forbidden,
            RoutingError::UrlTooLong { .. } | RoutingError::HeadTooLarge { .. } => Reason::HeadTooLarge,
            RoutingError::BadRequest(_) | RoutingError::UpgradeRequired => Reason::BadHandshake,
            RoutingError::Draining => Reason::Draining,
            RoutingError::HostNotAllowed => Reason::HostNotAllowed,
            RoutingError::FromPage => Reason::FromPage,
            RoutingError::OriginNotAllowed(_) => Reason::OriginNotAllowed,
            RoutingError::TooManyConnections => Reason::Throttled,
        }
    }
}

impl ConnectError {
    /// Returns the reason code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            ConnectError::MissingParameter(_) => Reason::MissingParameter,
            ConnectError::Throttled { .. } => Reason::Throttled,
            ConnectError::Denied(denial) => of_denial(denial),
            ConnectError::Full => Reason::NodeFull,
            ConnectError::Backlog => Reason::BacklogFull,
            ConnectError::Unavailable => Reason::RegistryUnavailable,
            ConnectError::Refused(_) => Reason::BackendRefused,
            ConnectError::Integration(error) => of_integration(error),
        }
    }

    /// Returns the level whose throttle was exceeded, if one was.
    pub(super) fn throttled(&self) -> Option<ThrottleLevel> {
        match self {
            ConnectError::Throttled { level } => Some(*level),
            ConnectError::Denied(Denial::UsageExceeded(_)) => Some(ThrottleLevel::UsagePlan),
            ConnectError::MissingParameter(_)
            | ConnectError::Denied(_)
            | ConnectError::Full
            | ConnectError::Backlog
            | ConnectError::Unavailable
            | ConnectError::Refused(_)
            | ConnectError::Integration(_) => None,
        }
    }

    /// Returns the label value of `tidegate_connects_total`.
    pub(super) fn outcome(&self) -> ConnectOutcome {
        match self {
            ConnectError::MissingParameter(_) => ConnectOutcome::BadRequest,
            ConnectError::Throttled { .. } => ConnectOutcome::Throttled,
            ConnectError::Denied(denial) => ConnectOutcome::Denied(denial.outcome()),
            ConnectError::Full => ConnectOutcome::Full,
            ConnectError::Backlog => ConnectOutcome::Backlog,
            ConnectError::Unavailable => ConnectOutcome::Unavailable,
            ConnectError::Refused(_) => ConnectOutcome::Refused,
            ConnectError::Integration(_) => ConnectOutcome::Failed,
        }
    }
}

impl MessageError {
    /// Returns the reason code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            MessageError::NoRoute => Reason::NoRoute,
            MessageError::Throttled { .. } => Reason::Throttled,
            MessageError::UsageExceeded(exceeded) => of_usage(*exceeded),
            MessageError::RefreshDenied(denial) => of_denial(denial),
            MessageError::Integration(error) => of_integration(error),
            MessageError::ReplyTooLarge { .. } => Reason::ReplyTooLarge,
        }
    }

    /// Returns the level whose throttle was exceeded, if one was.
    pub(super) fn throttled(&self) -> Option<ThrottleLevel> {
        match self {
            MessageError::Throttled { level } => Some(*level),
            MessageError::UsageExceeded(_) => Some(ThrottleLevel::UsagePlan),
            MessageError::NoRoute
            | MessageError::RefreshDenied(_)
            | MessageError::Integration(_)
            | MessageError::ReplyTooLarge { .. } => None,
        }
    }
}

impl ConnectionsApiError {
    /// Returns the reason code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            ConnectionsApiError::Denied(error) => of_iam(error),
            ConnectionsApiError::UsageExceeded(exceeded) => of_usage(*exceeded),
            ConnectionsApiError::Throttled => Reason::Throttled,
            ConnectionsApiError::InvalidConnectionId(_)
            | ConnectionsApiError::BadRequest(_)
            | ConnectionsApiError::InvalidName(_)
            | ConnectionsApiError::InvalidMessage { .. }
            | ConnectionsApiError::InvalidExcept
            | ConnectionsApiError::TooManyGroups { .. }
            | ConnectionsApiError::UnknownMethod
            | ConnectionsApiError::BodyTimeout
            | ConnectionsApiError::BodyLost => Reason::BadCall,
            ConnectionsApiError::Gone => Reason::ConnectionGone,
            ConnectionsApiError::TooLarge | ConnectionsApiError::OverLimit { .. } => Reason::TooLarge,
            ConnectionsApiError::BufferFull => Reason::BufferFull,
            ConnectionsApiError::OwnerUnreachable => Reason::OwnerUnreachable,
            ConnectionsApiError::BodiesFull => Reason::BodiesFull,
            ConnectionsApiError::DeliveryUnknown => Reason::DeliveryUnknown,
        }
    }

    /// Returns the label value of `tidegate_pushes_total`.
    pub(super) fn outcome(&self) -> PushOutcome {
        match self {
            ConnectionsApiError::Gone => PushOutcome::Gone,
            ConnectionsApiError::BufferFull | ConnectionsApiError::BodiesFull => PushOutcome::Full,
            ConnectionsApiError::OwnerUnreachable => PushOutcome::Unreachable,
            ConnectionsApiError::DeliveryUnknown => PushOutcome::Unknown,
            ConnectionsApiError::TooLarge | ConnectionsApiError::OverLimit { .. } => PushOutcome::TooLarge,
            ConnectionsApiError::UsageExceeded(_) | ConnectionsApiError::Throttled => PushOutcome::Throttled,
            ConnectionsApiError::Denied(_) => PushOutcome::Denied(AuthorizerOutcome::Forbidden),
            ConnectionsApiError::InvalidConnectionId(_)
            | ConnectionsApiError::BadRequest(_)
            | ConnectionsApiError::InvalidName(_)
            | ConnectionsApiError::InvalidMessage { .. }
            | ConnectionsApiError::InvalidExcept
            | ConnectionsApiError::TooManyGroups { .. }
            | ConnectionsApiError::UnknownMethod
            | ConnectionsApiError::BodyTimeout
            | ConnectionsApiError::BodyLost => PushOutcome::Invalid,
        }
    }

    /// Returns the level whose throttle was exceeded, if one was.
    pub(super) fn throttled(&self) -> Option<ThrottleLevel> {
        match self {
            ConnectionsApiError::UsageExceeded(_) => Some(ThrottleLevel::UsagePlan),
            ConnectionsApiError::Throttled => Some(ThrottleLevel::Account),
            _ => None,
        }
    }
}

/// Returns the reason code of a failed call of an integration.
pub(super) fn of_integration(error: &IntegrationError) -> Reason {
    match error {
        IntegrationError::Call(CallError::Unreachable(_)) => Reason::BackendUnreachable,
        IntegrationError::Call(CallError::Overloaded) => Reason::BackendOverloaded,
        IntegrationError::Call(CallError::TimedOut { .. }) => Reason::BackendTimeout,
        IntegrationError::Call(CallError::Lost(_)) => Reason::BackendLost,
        IntegrationError::Refused(_) => Reason::BackendStatus,
        IntegrationError::Function => Reason::FunctionFailed,
        IntegrationError::Call(CallError::TooLarge { .. })
        | IntegrationError::Redirect(_)
        | IntegrationError::Unreadable(_) => Reason::BackendUnreadable,
    }
}

/// Returns the reason code of a client or call that was refused access.
fn of_denial(denial: &Denial) -> Reason {
    match denial {
        Denial::MissingIdentitySource(_) => Reason::IdentitySourceMissing,
        Denial::RepeatedIdentitySource(_) => Reason::IdentitySourceRepeated,
        Denial::Token(_) => Reason::TokenInvalid,
        Denial::MissingScope => Reason::ScopeMissing,
        Denial::Unauthorized => Reason::AuthorizerUnauthorized,
        Denial::ExplicitDeny => Reason::AuthorizerDenied,
        Denial::NoAllow { .. } => Reason::AuthorizerNotAllowed,
        Denial::Authorizer(_) => Reason::AuthorizerFailed,
        Denial::ApiKey => Reason::ApiKeyInvalid,
        Denial::UsageExceeded(exceeded) => of_usage(*exceeded),
        Denial::Iam(error) => of_iam(error),
    }
}

/// Returns the code of a signed request that was refused.
fn of_iam(error: &IamError) -> Reason {
    match error {
        IamError::Signature(SignatureError::Missing) => Reason::NotSigned,
        IamError::Signature(_) => Reason::SignatureInvalid,
        IamError::AccessDenied(_) => Reason::IamDenied,
    }
}

fn of_usage(exceeded: UsageExceeded) -> Reason {
    match exceeded {
        UsageExceeded::Throttle => Reason::UsageThrottled,
        UsageExceeded::Quota => Reason::QuotaExceeded,
    }
}
