// With `fetch` (Node 18 or later): a job of each type, from the list to the end of its review, and
// a tool that is paid with what was earned. After `pay`, which needs [spending], also with money.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const API = "http://127.0.0.1:8402/api/external";
const FLOW = { name: "Triage", description: "Sorts tickets", nodes: [
  { id: "in", type: "tool", label: "Read", tool: { product_id: "p1", product_name: "Mail" } },
  { id: "out", type: "prompt", label: "Sort", prompt: { text: "How urgent is it?" } },
], edges: [{ id: "e1", from: "in", to: "out" }] };

// Sends a call until it is answered. Every try has the same key, so that the proxy makes it once.
async function call(path, body = {}, method = "POST") {
  const request = { method, body: JSON.stringify(body), headers: { "Idempotency-Key": randomUUID() } };
  let told;
  for (const pause of [1, 1, 2, 4, 8, 16, 32, 0]) {
    try {
      const answer = await fetch(API + path, { ...request, signal: AbortSignal.timeout(90_000) });
      if (answer.ok) return await answer.json();
      told = `${answer.status} ${await answer.text()}`;
      if (answer.status < 500 && !answer.headers.has("Retry-After")) break;
    } catch (error) {
      told = error;
    }
    await sleep(pause * 1000);
  }
  throw new Error(`${path}: ${told}`);
}

const { jobs } = await call("/jobs/list");
for (const type of ["general", "social_share", "workflow_creation"]) {
  const job = jobs.find((job) => job.job_type === type && job.status === "open");
  if (!job) throw new Error(`no ${type} job is open`);
  const path = "/jobs/" + job.job_id;
  const { job: reserved } = await call(path + "/reserve");
  console.log(reserved.job_instructions);
  const proof = { proof_text: "Done: ticket #12345", reservation_id: reserved.reservation_id };
  if (type === "social_share") proof.social_posts = [{ url: "https://social.example/@me/1" }];
  if (type === "workflow_creation") {
    proof.workflow_id = (await call(path + "/workflow/create", FLOW)).workflow_id;
    const workflow = `${path}/workflow/${proof.workflow_id}`;
    await call(workflow, FLOW, "PUT");
    await call(workflow + "/publish");
  }
  await call(path + "/complete", proof);
  // While a review runs, any other status may stand there.
  let status;
  do {
    status = (await call(path + "/status?wait=50s")).submission.status;
  } while (!["approved", "rejected"].includes(status));
  console.log(job.title, "->", status);
}

console.log((await call("/credits/balance")).balance_credits, "credits");
const tool = "/tools/ai-writing-quality-check/actions/check-for-banned-phrases";
const used = await call(tool + "/invoke", { parameters: { content: "Our customers love us." } });
console.log(used.result, "for", used.charged_credits);

if (process.argv.includes("pay")) {
  console.log((await call(tool + "/invoke?pay=x402", { content: "Our customers love us." })).response);
  const { wallet_address } = await call("/credits/balance");
  const order = { wallet_address, credits: 500, payment_method: "x402" };
  console.log((await call("/credits/purchase", order)).status);
  console.log((await call("/credits/balance")).balance_credits, "credits");
}
