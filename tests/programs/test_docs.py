"""The page with the calls, in a browser: it works under its policy, and a foreign page gets nothing of it."""

import json
import urllib.parse

from browser import Pages
from devtools import tab
from proxy import serving

# Waits for something in the page; then the calls of a button, and the answer of a call that is tried.
TRY = """
(async () => {
  const seen = async (selector) => {
    for (;;) {
      const found = document.querySelector(`#operations-jobs-job_list ${selector}`);
      if (found) return found;
      await new Promise((next) => setTimeout(next, 20));
    }
  };
  for (const button of [".opblock-summary-control", ".try-out__btn", ".execute"]) {
    (await seen(button)).click();
  }
  const answer = await seen(".live-responses-table .response");
  return answer.innerText;
})()
"""

# Everything that a page can try with a URL; each gives what it could read.
STEAL = """
(async (target) => {
  const read = {};
  for (const path of ["/docs", "/docs/start.js", "/docs/manual/api", "/openapi.json"]) {
    for (const mode of ["cors", "no-cors"]) {
      const answer = await fetch(target + path, { mode }).catch(() => null);
      read[`${mode} ${path}`] = answer && (await answer.text()) || null;
    }
  }
  const loads = (name, property, url) => new Promise((done) => {
    const element = document.createElement(name);
    element.onload = () => done(true);
    element.onerror = () => done(false);
    element[property] = url;
    document.body.append(element);
  });
  read.script = (await loads("script", "src", target + "/docs/swagger-ui-bundle.js")) || null;
  read.globals = typeof SwaggerUIBundle === "undefined" ? null : "SwaggerUIBundle";
  await loads("iframe", "src", target + "/docs");
  return read;
})
"""


def test_the_page_works_under_its_policy_and_asks_no_other_host(tmp_path):
    with serving("--sandbox") as address, tab(tmp_path / "profile") as page:
        page.open(f"{address}/docs")
        answer = page.run(TRY)
        assert answer.startswith("200") and '"jobs"' in answer, answer
        page.open(f"{address}/docs/manual/errors")
        assert "| status |" in page.run("document.body.innerText")
        asked = {urllib.parse.urlsplit(url) for url in page.urls}
    hosts = {url.netloc for url in asked if url.scheme != "data"}
    assert hosts == {urllib.parse.urlsplit(address).netloc}, page.urls
    assert "/api/external/jobs/list" in {url.path for url in asked}
    # The icon of the browser's tab is not there.
    assert [it for it in page.complaints if "404" not in it] == []


def test_a_foreign_page_reads_nothing_of_it_and_may_lead_a_person_there(tmp_path):
    log_file = tmp_path / "log"
    with log_file.open("w") as log, Pages() as pages, tab(tmp_path / "profile") as page:
        with serving("--sandbox", log=log) as address:
            for host in ("evil.example", "127.0.0.1"):
                page.open(pages.origin(host) + "/nothing.html")
                read = page.run(f"{STEAL}({json.dumps(address)})")
                assert set(read.values()) == {None}, (host, read)
            # A link that the person follows.
            page.run(f"location.assign({json.dumps(address)} + '/docs')")
            while page.read().get("method") != "Page.loadEventFired":
                pass
            assert page.run(TRY).startswith("200")
    events = map(json.loads, filter(lambda line: line[:1] == "{", log_file.read_text().splitlines()))
    events = [event for event in events if event.get("message") == "request"]
    # The browser asks for an icon of the tab by itself.
    refused = [it for it in events if it.get("error") and it["path"] != "/favicon.ico"]
    assert {event["error"] for event in refused} == {"foreign_page"}
    assert sum(event["path"] == "/docs" for event in refused) == 2 * 3, refused
