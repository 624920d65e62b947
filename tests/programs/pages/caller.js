// A page that uses the proxy as a program would, and reports what it got.

const { target } = Object.fromEntries(new URLSearchParams(location.search));
const headers = { "content-type": "application/json", "idempotency-key": `k-${Math.random()}` };

const call = async (method, path) => {
  try {
    const answer = await fetch(target + path, { method, headers, body: "{}" });
    const [id, error] = ["x-request-id", "x-agentpmt-proxy-error"].map((it) => answer.headers.get(it));
    return { status: answer.status, body: await answer.json(), id, error };
  } catch {
    return null;
  }
};

async function all() {
  const list = await call("POST", "/api/external/jobs/list");
  const update = await call("PUT", "/api/external/jobs/none/workflow/a");
  await fetch("/report", { method: "POST", body: JSON.stringify({ list, update }) });
}
all();
