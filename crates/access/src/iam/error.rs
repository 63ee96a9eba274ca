use thiserror::Error;

use super::sigv4::SignatureError;

/// The reason why a signed request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IamError {
    #[error("the signature is not valid")]
    Signature(#[source] SignatureError),
    #[error(transparent)]
    AccessDenied(AccessDenied),
}

/// The error of a key whose policy does not allow an action, in AWS's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("User: {user_arn} is not authorized to perform: {action} on resource: {resource} {}", because(*.explicitly, .action))]
pub struct AccessDenied {
    pub user_arn: String,
    pub action: &'static str,
    /// ARN of the resource. All but the account's last four digits are hidden, as AWS shows it.
    pub resource: String,
    /// True if a statement denies the action, false if none allows it.
    pub explicitly: bool,
}

fn because(explicitly: bool, action: &str) -> String {
    if explicitly {
        "with an explicit deny in an identity-based policy".to_owned()
    } else {
        format!("because no identity-based policy allows the {action} action")
    }
}
