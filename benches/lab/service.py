"""A process that listens on a port of loopback, and is stopped at the end whatever happens."""

import http.client
import os
import socket
import subprocess
import time

READY_WITHIN = 30
STOPPED_WITHIN = 35


class Service:
    def __init__(self, name, command, port, ready="/", folder=None, env=None, log=None):
        self.name = name
        self.port = port
        self.ready = ready
        self.command = [str(part) for part in command]
        self.folder = folder
        self.env = environment(env)
        self.log = log

    def __enter__(self):
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        output = open(self.log, "ab") if self.log else subprocess.DEVNULL
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output)
        if self.log:
            output.close()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def pid(self):
        return self.process.pid

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self, pause=0.02):
        end = time.monotonic() + READY_WITHIN
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not start; see {self.log}")
            time.sleep(pause)

    def is_ready(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", self.ready)
            return connection.getresponse().status < 500
        except OSError:
            return False
        finally:
            connection.close()


def environment(more=None):
    """Without what would configure a proxy, ours or another."""
    def is_kept(name):
        return not name.startswith("AGENTPMT_PROXY_") and not name.lower().endswith("_proxy")

    kept = {name: value for name, value in os.environ.items() if is_kept(name)}
    return {**kept, **(more or {})}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
