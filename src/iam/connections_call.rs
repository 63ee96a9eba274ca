use std::net::IpAddr;

use super::policy_path::PolicyPath;
use super::sigv4::Received;

/// A signed call of `@connections`, `@groups`, `@users`, `@broadcast` or `@send`.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionsCall<'a> {
    pub api_id: &'a str,
    pub stage: &'a str,
    /// Paths of the resources that the call acts on, as policies name them below the stage.
    pub paths: &'a [PolicyPath],
    pub received: Received<'a>,
    pub source_ip: IpAddr,
    pub secure: bool,
}
