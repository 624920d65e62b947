//! `mcp config`: how MCP clients are told of the proxy.

use std::env;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::super::{
    config_args::ConfigArgs,
    failure::Failure,
    output::{print, tell},
    remote::{ProxyPlace, TOKEN},
};

/// The name of the server in the clients' settings.
const NAME: &str = "agentpmt";

/// Print how an MCP client is set up for this proxy
///
/// Prints a command, or the JSON for the client's settings, and writes no file. The token stays in the
/// environment variable AGENTPMT_PROXY_TOKEN of the client.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy mcp config claude-code\n  \
                        agentpmt-proxy mcp config cursor --url https://proxy.example:8402")]
pub(super) struct McpConfig {
    /// The client
    client: McpClient,
    /// Where the proxy runs: http://HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum McpClient {
    ClaudeCode,
    ClaudeDesktop,
    Cursor,
    Vscode,
    Codex,
    Gemini,
}

impl McpConfig {
    pub(super) fn run(self, settings: &ConfigArgs) -> Result<(), Failure> {
        let place = ProxyPlace::new(self.url.as_deref(), settings)?;
        let program = env::current_exe().map_err(Failure::Runtime)?.display().to_string();
        let (text, hint) = self.client.setup(&place, &program);
        tell(&format!("{hint}\n"));
        print(&text)
    }
}

impl McpClient {
    /// The command or JSON, and where it belongs.
    fn setup(self, place: &ProxyPlace, program: &str) -> (String, String) {
        let endpoint = place.url().map(|base| format!("{base}/mcp"));
        let place = place.to_string();
        let stdio = |token: &str| json!({ "command": program, "args": ["mcp", "--url", place], "env": { TOKEN: token } });
        // A client that reads the variable itself speaks HTTP; a unix socket has no URL.
        let http = |key: &str, token: &str| {
            endpoint.as_ref().map_or_else(
                || stdio(token),
                |url| json!({ key: url, "headers": { "Authorization": format!("Bearer {token}") } }),
            )
        };
        let file = |file: &str| {
            format!(
                "Put this into {file}, and set {TOKEN} where the client starts, if the proxy has clients:"
            )
        };
        let command =
            format!("Run this, and set {TOKEN} where the client starts, if the proxy has clients:");
        match self {
            Self::ClaudeCode => {
                (format!("claude mcp add {NAME} -- {program} mcp --url {place}\n"), command)
            }
            Self::Codex => {
                let by = match &endpoint {
                    Some(url) => format!("--url {url} --bearer-token-env-var {TOKEN}"),
                    None => format!("-- {program} mcp --url {place}"),
                };
                (format!("codex mcp add {NAME} {by}\n"), command)
            }
            Self::ClaudeDesktop => {
                let hint = "Put this into claude_desktop_config.json; it reads no variable, so write the \
                            token of a client there, or leave `env` out if the proxy has none:";
                (servers("mcpServers", &stdio("${AGENTPMT_PROXY_TOKEN}")), hint.to_owned())
            }
            Self::Cursor => {
                let server = http("url", "${env:AGENTPMT_PROXY_TOKEN}");
                (servers("mcpServers", &server), file("~/.cursor/mcp.json"))
            }
            Self::Vscode => {
                let mut server = http("url", "${env:AGENTPMT_PROXY_TOKEN}");
                let kind = if endpoint.is_some() { "http" } else { "stdio" };
                server["type"] = kind.into();
                (servers("servers", &server), file(".vscode/mcp.json"))
            }
            Self::Gemini => {
                let server = http("httpUrl", "${AGENTPMT_PROXY_TOKEN}");
                (servers("mcpServers", &server), file("~/.gemini/settings.json"))
            }
        }
    }
}

/// The settings of a client with one server under this key.
fn servers(key: &str, server: &Value) -> String {
    let named: Map<_, _> = [(NAME.to_owned(), server.clone())].into_iter().collect();
    format!("{:#}\n", json!({ key: named }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_is_told_where_the_proxy_is_and_the_token_stays_a_variable() {
        for url in ["http://127.0.0.1:8402", "unix:/run/proxy.sock"] {
            let place = ProxyPlace::new(Some(url), &ConfigArgs::of_file(None)).unwrap();
            for client in McpClient::value_variants() {
                let (text, hint) = client.setup(&place, "/bin/agentpmt-proxy");
                assert!(text.contains(url), "{client:?}: {text}");
                assert!(format!("{text}{hint}").contains(TOKEN), "{client:?}: {text}");
                let is_command =
                    text.starts_with("claude mcp add") || text.starts_with("codex mcp add");
                let is_json = serde_json::from_str::<Value>(&text).is_ok();
                assert!(is_command != is_json, "{client:?}: {text}");
            }
        }
    }
}
