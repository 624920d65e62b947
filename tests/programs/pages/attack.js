// Everything by which a page can make a browser send something to another origin. Each attempt has a
// job of its own to reserve, so that the proxy's log shows which arrived, and comes to what the page
// could read of the answer, or to null.

const given = Object.fromEntries(new URLSearchParams(location.search));
const BODY = '{"limit":1}';
const attempts = [];

// `arrives` is the method that the browser sends, or null where it sends nothing at all.
const attempt = (name, arrives, run) => attempts.push({ name, arrives, run });

const urlOf = (name) => `${given.target}/api/external/jobs/${given.label}-${name}/reserve`;

async function read(request) {
  const answer = await request;
  return answer.type === "opaque" ? null : `${answer.status} ${await answer.text()}`;
}

function element(tag, attributes) {
  const made = Object.assign(document.createElement(tag), attributes);
  document.body.append(made);
  return made;
}

// An element that says whether it could use what it was given.
function loads(tag, attributes) {
  return new Promise((resolve) => {
    const made = document.createElement(tag);
    made.addEventListener("load", () => resolve("loaded"));
    made.addEventListener("error", () => resolve(null));
    document.body.append(Object.assign(made, attributes));
  });
}

function submit(url, attributes, fields = { limit: "1" }) {
  const form = element("form", { method: "post", action: url, ...attributes });
  for (const [name, value] of Object.entries(fields)) {
    form.append(Object.assign(document.createElement("input"), { name, value }));
  }
  form.submit();
  return null;
}

function submitInFrame(url, attributes, fields) {
  const name = `frame-${Math.random()}`;
  element("iframe", { name });
  return submit(url, { target: name, ...attributes }, fields);
}

// A frame whose origin is `null`, with a script that says what it could read.
function inFrame(attributes) {
  return new Promise((resolve) => {
    const frame = document.createElement("iframe");
    addEventListener("message", ({ source, data }) => {
      if (source === frame.contentWindow) resolve(data);
    });
    document.body.append(Object.assign(frame, attributes));
  });
}

const script = (url, options) => `<script>
  fetch(${JSON.stringify(url)}, ${JSON.stringify({ method: "POST", body: BODY, ...options })})
    .then((answer) => answer.type === "opaque" ? null : answer.text())
    .catch(() => null).then((text) => parent.postMessage(text, "*"));
</script>`;

const formScript = (url) => `<form method="post" action="${url}"></form><script>
  document.forms[0].submit();
</script>`;

const BODIES = {
  none: () => undefined,
  text: () => BODY,
  urlencoded: () => new URLSearchParams({ limit: "1" }),
  multipart: () => {
    const form = new FormData();
    form.append("limit", "1");
    return form;
  },
  untyped: () => new Blob([BODY]),
};

for (const [kind, body] of Object.entries(BODIES)) {
  for (const mode of ["cors", "no-cors"]) {
    const options = { method: "POST", mode, credentials: "include" };
    attempt(`fetch-${mode}-${kind}`, "POST", (url) =>
      read(fetch(url, { ...options, body: body() })));
  }
}

const json = { "content-type": "application/json" };
const posted = { method: "POST", body: BODY };

attempt("fetch-get", "GET", (url) => read(fetch(url)));
attempt("fetch-no-cors-get", "GET", (url) => read(fetch(url, { mode: "no-cors" })));
attempt("fetch-head", "HEAD", (url) => read(fetch(url, { method: "HEAD", mode: "no-cors" })));
attempt("fetch-keepalive", "POST", (url) =>
  read(fetch(url, { ...posted, mode: "no-cors", keepalive: true })));
attempt("fetch-no-referrer", "POST", (url) =>
  read(fetch(url, { ...posted, mode: "no-cors", referrerPolicy: "no-referrer" })));
attempt("fetch-no-cors-json", "POST", (url) =>
  read(fetch(url, { ...posted, mode: "no-cors", headers: json })));
attempt("fetch-same-origin", null, (url) => read(fetch(url, { ...posted, mode: "same-origin" })));

// These are asked for first.
attempt("fetch-json", "OPTIONS", (url) => read(fetch(url, { ...posted, headers: json })));
attempt("fetch-put", "OPTIONS", (url) => read(fetch(url, { method: "PUT", body: BODY })));
attempt("fetch-token", "OPTIONS", (url) =>
  read(fetch(url, { ...posted, headers: { authorization: "Bearer a" } })));
attempt("fetch-key", "OPTIONS", (url) =>
  read(fetch(url, { ...posted, headers: { "idempotency-key": "a" } })));

function xhr(url, type) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.withCredentials = true;
    request.setRequestHeader("content-type", type);
    request.onload = () => resolve(`${request.status} ${request.responseText}`);
    request.onerror = () => resolve(null);
    request.send(BODY);
  });
}
attempt("xhr-text", "POST", (url) => xhr(url, "text/plain"));
attempt("xhr-json", "OPTIONS", (url) => xhr(url, "application/json"));

attempt("beacon", "POST", (url) => navigator.sendBeacon(url, BODY) && null);
attempt("beacon-json", "OPTIONS", (url) =>
  navigator.sendBeacon(url, new Blob([BODY], { type: "application/json" })) && null);
attempt("ping", "POST", (url) => void element("a", { href: "#", ping: url }).click());
// The server names the URL in a header, which the images below give cause to use.
attempt("csp-report", "POST", () => null);

attempt("form", "POST", (url) => submitInFrame(url, {}));
attempt("form-multipart", "POST", (url) => submitInFrame(url, { enctype: "multipart/form-data" }));
attempt("form-json", "POST", (url) =>
  submitInFrame(url, { enctype: "text/plain" }, { '{"a":"': '","limit":1}' }));
attempt("form-blank", "POST", (url) => submit(url, { target: "_blank" }));
attempt("form-blank-no-referrer", "POST", (url) =>
  submit(url, { target: "_blank", rel: "noopener noreferrer" }));
attempt("form-get", "GET", (url) => submitInFrame(url, { method: "get" }));

attempt("image", "GET", (url) => loads("img", { src: url }));
attempt("image-cors", "GET", (url) => loads("img", { crossOrigin: "use-credentials", src: url }));
attempt("script", "GET", (url) => loads("script", { src: url }));
attempt("module", "GET", (url) => loads("script", { type: "module", src: url }));
attempt("style", "GET", (url) => loads("link", { rel: "stylesheet", href: url }));
attempt("font", "GET", (url) => new FontFace("a", `url(${url})`).load().then(() => "loaded"));
attempt("frame", "GET", (url) => void element("iframe", { src: url }));
attempt("object", "GET", (url) => loads("object", { data: url }));
attempt("window", "GET", (url) => void open(url));
attempt("refresh", "GET", (url) =>
  void element("iframe", { srcdoc: `<meta http-equiv="refresh" content="0;url=${url}">` }));

attempt("event-source", "GET", (url) => new Promise((resolve) => {
  const source = new EventSource(url, { withCredentials: true });
  source.onopen = () => resolve("opened");
  source.onerror = () => resolve(null);
}));
attempt("web-socket", "GET", (url) => new Promise((resolve) => {
  const socket = new WebSocket(url.replace("http", "ws"));
  socket.onopen = () => resolve("opened");
  socket.onerror = () => resolve(null);
}));

attempt("null-sandbox", "POST", (url) => inFrame({ sandbox: "allow-scripts", srcdoc: script(url) }));
attempt("null-sandbox-no-cors", "POST", (url) =>
  inFrame({ sandbox: "allow-scripts", srcdoc: script(url, { mode: "no-cors" }) }));
attempt("null-sandbox-json", "OPTIONS", (url) =>
  inFrame({ sandbox: "allow-scripts", srcdoc: script(url, { headers: json }) }));
attempt("null-data", "POST", (url) =>
  inFrame({ src: `data:text/html,${encodeURIComponent(script(url, { mode: "no-cors" }))}` }));
attempt("null-form", "POST", (url) =>
  void element("iframe", { sandbox: "allow-scripts allow-forms", srcdoc: formScript(url) }));
attempt("blob-frame", "POST", (url) => inFrame({
  src: URL.createObjectURL(new Blob([script(url, { mode: "no-cors" })], { type: "text/html" })),
}));

function inWorker(code) {
  return new Promise((resolve) => {
    const worker = new Worker(URL.createObjectURL(new Blob([code])));
    worker.onmessage = ({ data }) => resolve(data);
  });
}
attempt("worker", "POST", (url) => inWorker(
  `fetch("${url}", { method: "POST", body: "{}" }).then((answer) => answer.text())
     .catch(() => null).then(postMessage);`));
attempt("worker-import", "GET", (url) => inWorker(
  `try { importScripts("${url}"); postMessage("loaded") } catch { postMessage(null) }`));

// Only what counts as secure may have one.
if (navigator.serviceWorker) {
  attempt("service-worker", "POST", async (url) => {
    const script = `service-worker.js?url=${encodeURIComponent(url)}`;
    const { installing } = await navigator.serviceWorker.register(script);
    return new Promise((resolve) => {
      installing.onstatechange = () => installing.state === "redundant" && resolve(null);
    });
  });
}
if (globalThis.WebTransport) {
  attempt("web-transport", null, (url) =>
    new WebTransport(url.replace("http:", "https:")).ready.then(() => "opened"));
}

// A server of the page's own sends the browser on.
const via = (origin, status, url) => `${origin}/redirect/${status}?to=${encodeURIComponent(url)}`;
for (const [where, origin] of [["own", location.origin], ["third", given.third]]) {
  for (const status of [307, 308]) {
    attempt(`redirect-${where}-${status}`, "POST", (url) =>
      read(fetch(via(origin, status, url), { ...posted, mode: "no-cors" })));
  }
  attempt(`redirect-${where}-cors`, "POST", (url) => read(fetch(via(origin, 307, url), posted)));
  attempt(`redirect-${where}-form`, "POST", (url) => submitInFrame(via(origin, 307, url), {}));
  attempt(`redirect-${where}-image`, "GET", (url) => loads("img", { src: via(origin, 302, url) }));
}

// Leaves the page, so it comes last.
const last = { name: "form-top", arrives: "POST" };

async function all() {
  const done = attempts.map(async ({ name, arrives, run }) => {
    const learned = await Promise.resolve().then(() => run(urlOf(name))).catch(() => null);
    return { name, arrives, read: learned ?? null };
  });
  const body = JSON.stringify([...await Promise.all(done), { ...last, read: null }]);
  await fetch("/report", { method: "POST", body });
  submit(urlOf(last.name), { target: "_top" });
}
all();
