"""Serve the files of a folder over HTTP: `python weight_host.py FOLDER HOST PORT`, as `reasoner.engine.weights` does.

Servers on other machines fetch the policy's weights from here. Files are sent by the kernel (`sendfile`), so that
neither their bytes nor this process's work take time from training. Only GET is answered, only with the key in the
environment variable REASONER_WEIGHT_KEY, and only for a file in a folder of FOLDER. `Range: bytes=N-` resumes a file.
The process ends when its standard input is closed, as at the end of the process that started it. It imports nothing
but the standard library, so that it starts at once and stays small.
"""

from __future__ import annotations

import hmac
import os
import re
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

WEIGHT_KEY_VARIABLE = "REASONER_WEIGHT_KEY"
IDLE_SECONDS = 60.0
"""Seconds after which a connection that neither asks nor takes bytes is closed."""


class Files(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    folder: ClassVar[Path]
    key: ClassVar[str]

    def do_GET(self) -> None:
        """Send a file, from the byte that the header Range names."""
        if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), f"Bearer {self.key}".encode()):
            return self._refuse(401)
        path = re.fullmatch(r"/([\w-]+)/(\w[\w.-]*)", self.path)
        try:
            file = open(self.folder.joinpath(*path.groups()), "rb") if path else None
        except OSError:
            file = None
        if file is None:
            return self._refuse(404)
        with file:
            size = os.fstat(file.fileno()).st_size
            asked = re.fullmatch(r"bytes=(\d{1,18})-", self.headers.get("Range", ""))
            start = min(int(asked[1]), size) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - start))
            self.end_headers()
            self.wfile.flush()
            try:
                if size > start:
                    self.connection.sendfile(file, start, size - start)
            except OSError:  # the client went away; it asks again for the rest
                self.close_connection = True
        return None

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing: the trainer notes what goes wrong."""


class Listener(ThreadingHTTPServer):
    """HTTP server with a thread for each connection, on an IPv4 or IPv6 address."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), Files)

    def server_bind(self) -> None:
        """Bind without the name look-up of http.server, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore connections that break."""


def main() -> None:
    """Serve until standard input is closed. The port is printed first."""
    folder, host, port = sys.argv[1:]
    Files.folder, Files.key = Path(folder), os.environ[WEIGHT_KEY_VARIABLE]
    try:
        listener = Listener(host, int(port))
    except OSError as error:
        sys.exit(str(error))
    print(listener.server_address[1], flush=True)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
