// With `@modelcontextprotocol/client` (2.4 or later; Node 22.18 or later runs it as it stands): the loop
// of a job by the tools of the Model Context Protocol.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const PROXY = "http://127.0.0.1:8402";
const TOKEN = process.env.AGENTPMT_PROXY_TOKEN;
const headers: Record<string, string> = TOKEN ? { Authorization: `Bearer ${TOKEN}` } : {};

// Connects, calls a tool, and leaves.
async function once(name: string, args: Record<string, unknown>) {
  const client = new Client({ name: "worker", version: "1" });
  await client.connect(new StreamableHTTPClientTransport(new URL(PROXY + "/mcp"), { requestInit: { headers } }));
  try {
    return await client.callTool({ name, arguments: args });
  } finally {
    await client.close();
  }
}

// Calls a tool until it is answered. Every try has the same key, so that the proxy makes it once.
async function call(name: string, args: Record<string, unknown>, changes = false): Promise<any> {
  if (changes) args.idempotency_key = randomUUID();
  let told: unknown;
  for (const pause of [1, 1, 2, 4, 8, 16, 32, 0]) {
    try {
      const result = await once(name, args);
      if (!result.isError) return result.structuredContent;
      told = JSON.stringify(result.structuredContent);
      if ((result.structuredContent as any).retry === "never") break;
    } catch (error) {
      told = error; // The connection broke, or there is none.
    }
    await sleep(pause * 1000);
  }
  throw new Error(`${name}: ${told}`);
}

for (let job; ({ job } = await call("next_job", { job_type: ["general"], wait: "2s" }, true)), job;) {
  console.log(job.job_instructions);
  await call("job_complete", { job_id: job.job_id, proof_text: "Done: " + job.title }, true);
  let status;
  while (!["approved", "rejected"].includes(status)) {
    status = (await call("wait_for_review", { job_id: job.job_id })).submission.status;
  }
  console.log(job.title, "->", status);
}
