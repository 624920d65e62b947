//! `mcp`: the Model Context Protocol on standard input and output.

mod config;

use clap::{Args, Subcommand};
use rmcp::{ServiceExt, service::ServerInitializeError, transport::stdio};

use self::config::McpConfig;
use super::{
    config_args::ConfigArgs,
    failure::Failure,
    output::tell,
    remote::{ProxyPlace, Remote},
    runtime::block_on,
    sandbox_state,
    serve::{Start, serve_sandbox},
};
use crate::mcp::Mcp;

/// Give an agent the calls as MCP tools, on standard input and output
///
/// MCP clients start this command. It holds no key: it passes each call on to a running proxy, which is
/// found by the configuration of this folder, a unix socket first. The token of the client is taken from
/// AGENTPMT_PROXY_TOKEN. A running proxy also speaks MCP itself, at /mcp.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:\n  agentpmt-proxy mcp config claude-code\n  \
                        agentpmt-proxy mcp --url http://127.0.0.1:8402\n  \
                        agentpmt-proxy mcp --sandbox")]
pub(super) struct McpCommand {
    #[command(subcommand)]
    command: Option<McpSubcommand>,
    /// Where the proxy runs: http://HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Try it alone: use a proxy and a sandbox inside this program
    #[arg(long, conflicts_with = "url")]
    sandbox: bool,
}

#[derive(Debug, Subcommand)]
enum McpSubcommand {
    Config(McpConfig),
}

impl McpCommand {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        match (self.command, self.sandbox) {
            (Some(McpSubcommand::Config(config)), _) => config.run(&settings),
            (None, true) => serve_alone(settings),
            (None, false) => {
                let remote = Remote::new(ProxyPlace::new(self.url.as_deref(), &settings)?)?;
                block_on(serve_stdio(remote))
            }
        }
    }
}

/// Serves until standard input ends.
async fn serve_stdio(remote: Remote) -> Result<(), Failure> {
    let running = match Mcp::new(remote).serve(stdio()).await {
        Ok(running) => running,
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => return Err(Failure::NotMcp(Box::new(error))),
    };
    // It fails only if the task panicked, which is logged.
    let _ = running.waiting().await;
    Ok(())
}

/// The same with a proxy and a sandbox of its own.
fn serve_alone(settings: ConfigArgs) -> Result<(), Failure> {
    let (settings, _throw_away) = sandbox_state::settings(settings)?;
    let folder = tempfile::tempdir().map_err(Failure::Runtime)?;
    let place = format!("unix:{}", folder.path().join("proxy.sock").display());
    let settings = settings.with("listen", [place.clone()]);
    let remote = Remote::new(ProxyPlace::new(Some(&place), &settings)?)?;
    // Standard output belongs to the client.
    let say = |text: String| {
        tell(&text);
        Ok(())
    };
    let start = Start::new(settings, true, say)?;
    block_on(async {
        tokio::select! {
            ended = serve_sandbox(start, Vec::new()) => ended,
            ended = serve_stdio(remote) => ended,
        }
    })
}
