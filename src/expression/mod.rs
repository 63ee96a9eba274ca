//! The small languages that an API's author writes: what they select from a message, and what they put into a
//! call. Pure: text is compiled once, when the configuration is loaded, and evaluated for each message.
//!
//! - [`SelectionExpression`] turns a message into a key: `$request.body.action`.
//! - [`BodyPath`] takes one value out of a message: the path after `route.request.body.`.
//! - [`Destination`], [`Source`] and [`RouteParameter`] are the two sides of a request parameter mapping and what a
//!   route declares; [`TakenNames`] are the names that a call has from them, so that no client's part has them too.
//! - [`UriTemplate`] is an integration URI with `${stageVariables.name}` in it.
//!
//! Selecting reads a message once, as a stream, and goes into the values that the paths name and no others: time is
//! linear in the message, and neither its depth nor its size costs stack. A message is JSON if serde_json can skip
//! over it: a number of any size is fine (`1e999` keeps its spelling), and so is a byte order mark before the value;
//! anything after it is not. So whether a message is JSON does not depend on the paths. Half of a surrogate pair
//! (`"\ud800"`) is U+FFFD where it is selected.
//!
//! Differs from AWS: AWS documents neither the JSON path dialect nor how objects become text. Here a path is made of
//! names and indexes alone, and an object, or a list inside a list, becomes its own JSON text without the blanks.

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
