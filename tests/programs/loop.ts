// The whole loop with a client that is made from the OpenAPI document.
import createClient from "openapi-fetch";
import type { paths } from "./api";

declare const process: { argv: string[] };

const client = createClient<paths>({ baseUrl: process.argv[2] });
const list = await client.POST("/api/external/jobs/list", { body: { limit: 20 } });
const job = list.data?.jobs?.find((job) => job.job_type === "general" && job.status === "open");
const params = { path: { job_id: job?.job_id ?? "" } };
const reserved = await client.POST("/api/external/jobs/{job_id}/reserve", { params });
const body = { proof_text: "done", reservation_id: reserved.data?.job?.reservation_id };
await client.POST("/api/external/jobs/{job_id}/complete", { params, body });
const status = await client.POST("/api/external/jobs/{job_id}/status", { params });
const refused = await client.POST("/api/external/jobs/{job_id}/complete", { params, body: { proof_text: "x" } });
const problem = refused.error as { code: string };
console.log(JSON.stringify([status.data?.submission?.status, problem.code]));
