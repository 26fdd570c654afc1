//! Calls that this version refuses: in the answer's own error field, as gRPC clients read it. One place for unary calls,
//! BatchCommands and the course's family.

use proto::coprocessor;
use types::Code;

use crate::errors;

/// An answer that can say that the call is not served.
pub(crate) trait Refused {
    /// That answer.
    fn refused() -> Self;
}

fn text(what: &str) -> String {
    errors::with_remedy(&format!("{what} not served by this version"), Code::Unsupported)
}

impl Refused for coprocessor::Response {
    fn refused() -> Self {
        coprocessor::Response { other_error: text("the coprocessor is"), ..Self::default() }
    }
}
