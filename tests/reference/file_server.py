"""A web server on this machine that serves files well, badly, slowly, or not at first."""

import hashlib
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = bytes(range(256)) * 1031
HASHED = f"/models/net-{hashlib.sha256(BODY).hexdigest()[:8]}.pth"


class Server(ThreadingHTTPServer):
    """Answers `files` by path; `faults` says what goes wrong, and how many times."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.headers = {}
        self.faults = {}
        self.asked = []
        self.lock = threading.Lock()

    def url(self, path):
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def next_fault(self, path):
        with self.lock:
            faults = self.faults.get(path, [])
            return faults.pop(0) if faults else None


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self):
        self.respond(with_body=False)

    def do_GET(self):
        self.respond(with_body=True)

    def respond(self, with_body):
        path = self.path
        if with_body:
            self.server.asked.append(path)
        body = self.server.files.get(path.partition("?")[0])
        fault = self.server.next_fault(path) if with_body else None
        if isinstance(fault, int) or body is None:
            self.send_response(fault or 404)
            self.send_header("X-Error-Code", "EntryNotFound")  # as the Hugging Face hub says it
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "slow":
            time.sleep(1.0)
        if fault == "hang up":
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(200)
        if fault != "no length":
            self.send_header("Content-Length", str(len(body)))
        for name, value in self.server.headers.get(path.partition("?")[0], {}).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body[: len(body) // 2] if fault == "truncated" else body)
        self.close_connection = True

    def log_message(self, *arguments):
        pass

    def handle(self):
        with suppress(OSError):  # the client, or a fault above, hung up
            super().handle()


@contextmanager
def serving(kind=Server):
    """Run a server in a thread."""
    server = kind()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
