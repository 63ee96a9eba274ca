use std::net::IpAddr;

use http::{HeaderMap, Method};

use super::condition::{ConditionKeys, user_agent};
use super::policy_path::PolicyPath;
use tidegate_core::clock::Timestamp;

/// A call of `@connections`, `@groups`, `@users`, `@broadcast` or `@send`, and the resources that it acts on.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionsCall<'a> {
    pub api_id: &'a str,
    pub stage: &'a str,
    /// Paths of the resources that the call acts on, as policies name them below the stage.
    pub paths: &'a [PolicyPath],
    pub facts: &'a CallFacts,
}

/// The facts of a call that do not change while it lasts. Policies test them.
#[derive(Clone, Debug)]
pub struct CallFacts {
    pub method: Method,
    pub source_ip: IpAddr,
    pub secure: bool,
    pub user_agent: Option<String>,
    /// Time when the call began, at which its signature must be valid.
    pub time: Timestamp,
}

impl CallFacts {
    /// Reads the facts of a call from its head.
    pub fn new(method: Method, headers: &HeaderMap, source_ip: IpAddr, secure: bool, time: Timestamp) -> Self {
        let user_agent = user_agent(headers).map(Into::into);
        CallFacts { method, source_ip, secure, user_agent, time }
    }

    pub(super) fn keys(&self) -> ConditionKeys<'_> {
        let CallFacts { source_ip, secure, user_agent, time, .. } = self;
        let (source_ip, user_agent) = (*source_ip, user_agent.as_deref());
        ConditionKeys { source_ip, user_agent, secure_transport: *secure, now: *time, user: None }
    }
}
