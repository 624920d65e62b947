"""Serves pages, and opens them in Chromium. What a page finds out it posts to where it came from."""

import contextlib
import http.server
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import threading
import urllib.parse

PAGES = pathlib.Path(__file__).parent / "pages"

# How long anything may take before a test fails, in seconds.
PATIENCE = 60

# Every name that ends in `.example` is this machine, as after a rebinding. The browser's own fence
# around local addresses is taken down: the proxy has to hold without it.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-popup-blocking",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-features=LocalNetworkAccessChecks",
    "--host-resolver-rules=MAP *.example 127.0.0.1",
]


@contextlib.contextmanager
def browsing(url, profile):
    """Chromium at a URL, with a profile that nobody has used."""
    process = subprocess.Popen(
        ["chromium", *FLAGS, f"--user-data-dir={profile}", url],
        env={"PATH": os.environ["PATH"], "HOME": str(profile)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        # Its children are in the session that it has for itself.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


class Pages(http.server.ThreadingHTTPServer):
    """A server of pages: `/NAME.html` runs `NAME.js`, `/redirect/STATUS?to=URL` leads elsewhere."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reports = queue.Queue()
        self.may_go_on = threading.Event()
        self.connections = []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}).start()
        return self

    def __exit__(self, *_):
        """Gives the port back; a connection that the browser has in reserve is closed as well."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def get_request(self):
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    @property
    def port(self):
        return self.server_address[1]

    def origin(self, host):
        return f"http://{host}:{self.port}"

    def url(self, host, name, **given):
        """Where a page is, for who calls this server by that name."""
        return f"{self.origin(host)}/{name}.html?{urllib.parse.urlencode(given)}"

    def report(self):
        return self.reports.get(timeout=PATIENCE)

    def handle_error(self, request, client_address):
        """A browser that goes away is no error."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, query = self.parts()
        if path.startswith("/redirect/"):
            return self.redirect(path, query)
        if path == "/go":
            self.server.may_go_on.wait(PATIENCE)
            return self.answer("text/plain", b"go")
        file = PAGES / pathlib.PurePosixPath(path).with_suffix(".js").name
        if not file.exists():
            return self.send_error(404)
        if path.endswith(".js"):
            return self.answer("text/javascript", file.read_bytes())
        page = f'<!doctype html><meta charset="utf-8"><body><script src="{file.name}"></script>'
        self.answer("text/html", page.encode(), query.get("csp_report"))

    def do_POST(self):
        path, query = self.parts()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path.startswith("/redirect/"):
            return self.redirect(path, query)
        if path == "/report":
            self.server.reports.put(json.loads(body))
        self.answer("text/plain", b"")

    def parts(self):
        parts = urllib.parse.urlsplit(self.path)
        return parts.path, dict(urllib.parse.parse_qsl(parts.query))

    def redirect(self, path, query):
        self.send_response(int(path.rsplit("/", 1)[1]))
        self.send_header("Location", query["to"])
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, content_type, body, csp_report=None):
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Access-Control-Allow-Origin", "*")
        if csp_report:
            policy = f"img-src 'none'; report-uri {csp_report}"
            self.send_header("Content-Security-Policy-Report-Only", policy)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
