// Sends one request while it is installed, and then gives up.
const url = new URLSearchParams(location.search).get("url");
addEventListener("install", (event) => {
  const sent = fetch(url, { method: "POST", mode: "no-cors", body: "{}" }).catch(() => null);
  event.waitUntil(sent.then(() => Promise.reject(new Error("it is done"))));
});
