//! The expressions in the configuration of an API: they select values from messages, and map values into calls to
//! backends. Pure code: an expression is compiled once, when the configuration is loaded, and evaluated for each
//! message.
//!
//! - [`SelectionExpression`] selects a key from a message: `$request.body.action`.
//! - [`BodyPath`] selects one value from a message: the path after `route.request.body.`.
//! - [`Destination`] and [`Source`] are the two sides of a request parameter mapping, [`RouteParameter`] is a parameter
//!   that a route declares. [`TakenNames`] are the names that the gateway sets in a call; a client's headers and query
//!   parameters with these names are left out.
//! - [`UriTemplate`] is an integration URI that contains `${stageVariables.name}`.
//!
//! Selection reads a message once, as a stream, and decodes only the values that the paths name. Time is linear in the
//! size of the message; neither its depth nor its size costs stack. A message is JSON if serde_json can skip over it. A
//! number may have any size (`1e999` keeps its spelling), and a byte order mark may precede the value; nothing may
//! follow it. So the paths have no influence on whether a message is JSON. Half of a surrogate pair (`"\ud800"`)
//! becomes U+FFFD where it is selected.
//!
//! Differs from AWS: AWS documents neither its JSON path dialect nor how objects become text. Here a path consists of
//! names and indexes only, and an object, or a list inside a list, becomes its own JSON text without blanks.

mod body_path;
mod error;
mod names;
mod path;
#[cfg(test)]
mod properties;
mod request_parameters;
mod selection;
mod selection_expression;
mod text;
mod uri_template;

pub use body_path::BodyPath;
pub use error::{ExpressionError, ExpressionProblem};
pub use names::{TakenNames, count_headers, count_parameters, header_key, parameter_key};
pub use path::PATH_STEPS_MAX;
pub use request_parameters::{Destination, ParameterError, RouteParameter, Source};
pub use selection_expression::{EXPRESSION_MAX_BYTES, SelectionExpression};
pub use uri_template::{MissingVariable, UriTemplate, UriTemplateError, VariableInHost};
