"""Chromium with its developer's tools, spoken to over two pipes."""

import contextlib
import json
import os
import signal
import subprocess

from browser import FLAGS, PATIENCE


class Tab:
    """A tab: what its page asks for, and what its policy forbids."""

    def __init__(self, reader, writer):
        self.reader, self.writer, self.last, self.session = reader, writer, 0, None
        self.urls, self.complaints = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Log", "Network", "Page", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Calls a method, and takes what happens until it is answered."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.writer.write(json.dumps(message).encode() + b"\0")
        self.writer.flush()
        while True:
            message = self.read()
            if message.get("id") == self.last:
                assert "error" not in message, message
                return message["result"]

    def read(self):
        text = b""
        while not text.endswith(b"\0"):
            byte = self.reader.read(1)
            assert byte, "the browser has ended, or took too long"
            text += byte
        message = json.loads(text[:-1])
        params = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.urls.append(params["request"]["url"])
        if message.get("method") == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
        return message

    def open(self, url):
        """Goes to a page, until it is loaded."""
        self.call("Page.navigate", url=url)
        while self.read().get("method") != "Page.loadEventFired":
            pass

    def run(self, script):
        """The value of an expression in the page."""
        options = {"awaitPromise": True, "returnByValue": True, "timeout": PATIENCE * 1000}
        result = self.call("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")


@contextlib.contextmanager
def tab(profile):
    """A tab of a Chromium with a profile that nobody has used. What takes too long ends it."""
    commands, answers = os.pipe(), os.pipe()
    script = f'exec timeout {PATIENCE} chromium "$@" 3<&{commands[0]} 4>&{answers[1]}'
    process = subprocess.Popen(
        ["bash", "-c", script, "-", *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
        env={"PATH": os.environ["PATH"], "HOME": str(profile)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(commands[0], answers[1]),
        start_new_session=True,
    )
    os.close(commands[0])
    os.close(answers[1])
    try:
        with open(answers[0], "rb") as reader, open(commands[1], "wb") as writer:
            yield Tab(reader, writer)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
