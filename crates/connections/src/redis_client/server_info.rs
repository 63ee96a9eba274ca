//! `INFO` of the server that holds the keys of a node.

use super::{Keys, RedisCommand, RedisConnection, ScriptText};
use tidegate_core::id::NodeId;

/// Reads `INFO`. KEYS: node, which only chooses the server. ARGV: a section of `INFO`.
static INFO: ScriptText = ScriptText::new("return redis.call('INFO', ARGV[1])");

/// A replacement for [`INFO`] if the user may not run that command. KEYS and ARGV are those of [`INFO`].
static NO_INFO: ScriptText = ScriptText::new("return ''");

/// Returns the run id of the server from the section `info` of `INFO`. It is empty if the section is.
pub fn run_id_of(info: &str) -> String {
    info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().trim().to_owned()
}

/// Reads a section of `INFO` of the server that holds this node's keys. The answer is empty if the user of `connection`
/// may not run that command.
pub fn ask(connection: &RedisConnection, keys: &Keys, node: NodeId, section: &str) -> RedisCommand {
    let script = if connection.hides_info() { &NO_INFO } else { &INFO };
    RedisCommand::script(script, vec![keys.node(node)]).arg(section)
}
