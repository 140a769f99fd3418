//! What goes wrong inside a template, before it is known where.

use crate::error::Code;

/// A failure; whoever runs the template adds the line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub code: Code,
    pub message: String,
}

impl Fault {
    /// The template or what it was given is wrong.
    pub fn new(message: String) -> Self {
        Self {
            code: Code::InvalidArgument,
            message,
        }
    }

    /// It asks for more than the limits allow.
    pub fn limit(message: impl Into<String>) -> Self {
        Self {
            code: Code::Unsupported,
            message: message.into(),
        }
    }

    /// The text of the template is wrong.
    pub fn syntax(message: impl Into<String>) -> Self {
        Self {
            code: Code::Format,
            message: message.into(),
        }
    }
}

/// A [`Fault`] with a message made as by `format!`.
macro_rules! fault {
    ($($part:tt)*) => { $crate::chat::fault::Fault::new(format!($($part)*)) };
}
pub(super) use fault;
