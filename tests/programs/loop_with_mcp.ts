// The whole loop with the TypeScript client: over HTTP to a URL, or over standard input to a program.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const [revision, command, ...args] = process.argv.slice(2);
const transport = command.startsWith("http:")
  ? new StreamableHTTPClientTransport(new URL(command))
  : new StdioClientTransport({ command, args });
const isNewest = revision === "2026-07-28";
const client = new Client({ name: "test", version: "1" }, {
  versionNegotiation: { mode: isNewest ? "auto" : "legacy" },
  ...(isNewest ? {} : { supportedProtocolVersions: [revision] }),
});
await client.connect(transport);

async function call(name: string, args: object): Promise<any> {
  const result = await client.callTool({ name, arguments: args });
  if (result.isError) throw new Error(JSON.stringify(result));
  return result.structuredContent;
}

const { jobs } = await call("job_list", { limit: 20 });
const { job_id } = jobs.find((job) => job.job_type === "general" && job.status === "open");
await call("job_reserve", { job_id });
await call("job_complete", { job_id, proof_text: "done" });
const { submission } = await call("wait_for_review", { job_id });
console.log(submission.status, client.getNegotiatedProtocolVersion());
await client.close();
