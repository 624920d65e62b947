// With `fetch` (Node 18 or later): workers side by side that take the next job, do it, and wait for its
// review. Ends when no job is left. `work` is the part that is yours.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const PROXY = "http://127.0.0.1:8402";
const TOKEN = process.env.AGENTPMT_PROXY_TOKEN;
// What this worker can do. A workflow is more than a text, as loop.mjs shows.
const FILTER = { job_type: ["general", "social_share"], wait: "2s" };

// Sends a call until it is answered. Every try has the same key, so that the proxy makes it once.
async function call(path, body = {}) {
  const headers = { "Idempotency-Key": randomUUID() };
  if (TOKEN) headers.Authorization = `Bearer ${TOKEN}`;
  const request = { method: "POST", body: JSON.stringify(body), headers };
  let told;
  for (const pause of [1, 1, 2, 4, 8, 16, 32, 0]) {
    try {
      const answer = await fetch(PROXY + path, { ...request, signal: AbortSignal.timeout(90_000) });
      if (answer.status === 204) return undefined;
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

// Reads the instructions, and returns the proof that the work was done; stops if the signal says so.
async function work(job, _signal) {
  const proof = { proof_text: "Done: " + job.title };
  if (job.job_type === "social_share") proof.social_posts = [{ url: "https://social.example/@me/1" }];
  return proof;
}

async function worker() {
  for (let taken; (taken = await call("/proxy/jobs/next", FILTER));) {
    const { job } = taken;
    const path = "/api/external/jobs/" + job.job_id;
    // A minute remains to hand the proof in.
    const left = Date.parse(job.reserved_until) - Date.now() - 60_000;
    const signal = AbortSignal.timeout(Math.max(left, 0));
    const late = new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    const proof = await Promise.race([work(job, signal), late]);
    if (!proof) {
      await call(`/proxy/reservations/${job.job_id}/release`);
      continue;
    }
    await call(path + "/complete", proof);
    let status;
    while (!["approved", "rejected"].includes(status)) {
      status = (await call(path + "/status?wait=50s")).submission.status;
    }
    console.log(job.title, "->", status);
  }
}

await Promise.all([worker(), worker(), worker(), worker()]);
