"""A server on this machine that sends whatever bytes a test wants, and when it wants."""

import socket
import threading
from contextlib import contextmanager, suppress


class RawServer:
    """Calls ``behave(connection, request, number)`` for each connection, in a thread."""

    def __init__(self, behave, reads=True):
        self.behave = behave
        self.reads = reads
        self.asked = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def url(self, path="/models/net.pth"):
        return f"http://127.0.0.1:{self.port}{path}"

    def _serve(self):
        with suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection, suppress(OSError):
            request = self._request(connection) if self.reads else b""
            self.asked.append(request)
            self.behave(connection, request, len(self.asked))
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _request(connection):
        request = b""
        while b"\r\n\r\n" not in request and (more := connection.recv(4096)):
            request += more
        return request


@contextmanager
def answering(behave, reads=True):
    """Run a server whose connections ``behave`` answers."""
    server = RawServer(behave, reads)
    try:
        yield server
    finally:
        with suppress(OSError):
            server.socket.shutdown(socket.SHUT_RDWR)
        server.socket.close()


def response(body=b"", status="200 OK", length=None, **headers):
    """Write a response; ``length`` is any text, by default that of the body, "" for no header."""
    length = str(len(body)) if length is None else length
    lines = [f"HTTP/1.1 {status}", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    lines += [f"Content-Length: {length}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
