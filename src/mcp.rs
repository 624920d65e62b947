//! The Model Context Protocol: the calls as tools.
//!
//! A tool call becomes a request of HTTP on the path of its row, and goes through a [`Door`] to the
//! proxy's own routes. So it has no rules, rights or limits besides those of HTTP.

mod result;
mod tool;

mod request;

mod key;

mod server;

pub(crate) use self::{key::Door, server::Mcp};
