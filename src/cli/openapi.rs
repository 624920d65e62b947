//! `openapi`: the description of the calls for programs.

use clap::Args;

use super::{failure::Failure, output::print};
use crate::openapi::document;

/// Print the OpenAPI document of the calls, as `GET /openapi.json` answers it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy openapi >openapi.json")]
pub(super) struct Openapi;

impl Openapi {
    pub(super) fn run(self) -> Result<(), Failure> {
        print(&format!("{:#}\n", document()))
    }
}
