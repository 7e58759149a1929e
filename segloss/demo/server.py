"""The page and its answers over HTTP, by the standard library; for this machine unless somebody asks for more."""

import ipaddress
import json
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from segloss.demo.answers import MOST_BYTES, Answers, GoneError
from segloss.errors import InputError

PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/demo.css": ("demo.css", "text/css; charset=utf-8"),
    "/demo.js": ("demo.js", "text/javascript; charset=utf-8"),
    "/paint.js": ("paint.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
NAME_HEADER = "X-File-Name"  # of the file that is sent, percent-encoded
SILENCE = 30.0  # seconds after which a connection is given up
CHUNK = 2**20
GONE = "the image is no longer kept here; choose it again"
JSON = "application/json"


class DemoServer(ThreadingHTTPServer):
    """Serves one run at an address; port 0 takes one that is free.

    Attributes:
        url: where the page is. is_open: other machines can reach it. pages: path -> type and content.

    Raises:
        InputError: the address is not one of this machine, or the port is taken.
    """

    daemon_threads = False  # a thread that the interpreter ends on its way out may abort the process
    allow_reuse_port = False  # of two on one port either would get some of the requests

    def __init__(self, answers: Answers, host: str = "127.0.0.1", port: int = 8000):
        self.answers, self.host = answers, host
        self._open: set[socket.socket] = set()
        page = files("segloss.demo") / "page"
        self.pages = {path: (kind, (page / name).read_bytes()) for path, (name, kind) in PAGES.items()}
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self.address_family = family
            super().__init__((str(address[0]), int(address[1])), DemoHandler)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            cure = "choose another --port, 0 for any that is free, or another --host"
            raise InputError(f"cannot be served at: {reason}", cure, f"{host}:{port}") from error
        bound = ipaddress.ip_address(str(self.server_address[0]).partition("%")[0])
        self.is_open = not bound.is_loopback
        machine = {socket.gethostname().lower(), socket.getfqdn().lower()} if self.is_open else set()
        self.names = {"localhost", host.lower(), *machine}
        named = socket.gethostname() if bound.is_unspecified else f"[{host}]" if ":" in host else host
        self.url = f"http://{named}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """Without the look-up of the machine's name that HTTPServer makes here, which may take seconds."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, as its base has it; the connection is known from here on."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close, and wait for what is being answered; who asks nothing is hung up on."""
        for request in tuple(self._open):
            with suppress(OSError):  # it has hung up itself
                request.shutdown(socket.SHUT_RD)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up is no fault of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def is_ours(self, host: str | None) -> bool:
        """Whether a request's ``Host`` is this server, not a name that somebody points here (DNS rebinding).

        Such a name is never a number, nor one that this machine gives to itself.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or self.is_open
        except ValueError:
            return False


class DemoHandler(BaseHTTPRequestHandler):
    """``GET`` the page, ``/run.json``, ``/picture?image=N``, ``/decided?image=N&decision=WORDS``; ``POST /images``."""

    server: DemoServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "segloss", ""
    timeout = SILENCE

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, work: Callable[[], tuple[str, bytes]]) -> None:
        """Send what ``work`` gives, or its fault as one line."""
        if not self.server.is_ours(self.headers.get("Host")):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, f"this page is at {self.server.url}")
            return
        try:
            self._send(HTTPStatus.OK, *work())
        except GoneError:
            self._refuse(HTTPStatus.GONE, GONE)
        except _Refusal as refusal:
            self._refuse(refusal.status, refusal.line)
        except ValueError as error:  # InputError is one
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, " ".join(str(error).split()))
        except (MemoryError, RuntimeError) as error:
            line = f"the network cannot see it ({type(error).__name__}); try a smaller image"
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, line)

    def _get(self) -> tuple[str, bytes]:
        parts = urlsplit(self.path)
        if parts.path in self.server.pages:
            return self.server.pages[parts.path]
        if parts.path == "/run.json":
            return JSON, json.dumps(self.server.answers.facts()).encode()
        asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.path not in ("/picture", "/decided") or not asked.get("image", "").isdecimal():
            raise _Refusal(HTTPStatus.NOT_FOUND, "there is no such page")
        number = int(asked["image"])
        if parts.path == "/picture":
            return "image/jpeg", self.server.answers.picture(number)
        return "application/octet-stream", self.server.answers.decided(number, asked.get("decision", "plain"))

    def _post(self) -> tuple[str, bytes]:
        if urlsplit(self.path).path != "/images":
            raise _Refusal(HTTPStatus.NOT_FOUND, "there is no such page")
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            raise _Refusal(HTTPStatus.FORBIDDEN, "images are taken from this page alone")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _Refusal(HTTPStatus.LENGTH_REQUIRED, "an image must say how long it is")
        name = unquote(self.headers.get(NAME_HEADER, "image"))
        if int(length) > MOST_BYTES:
            self._pass_over(int(length))
            what = f"has {int(length) / 2**20:.1f} MiB, more than the {MOST_BYTES // 2**20} that are taken"
            raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(InputError(what, "make it smaller", name)))
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            raise _Refusal(HTTPStatus.BAD_REQUEST, str(InputError("did not arrive whole", "send it again", name)))
        return JSON, json.dumps(self.server.answers.look(name, content)).encode()

    def _pass_over(self, length: int) -> None:
        """Read on as far as is bearable: who is cut off while sending never sees the answer."""
        left = min(length, 4 * MOST_BYTES)
        while left > 0 and (read := len(self.rfile.read(min(left, CHUNK)))):
            left -= read

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus, line: str) -> None:
        """A fault as JSON; what else the connection may hold is not looked at."""
        self.close_connection = True
        self._send(status, JSON, json.dumps({"error": line}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: names of images are nobody's business."""


class _Refusal(Exception):
    """A request that is answered with a status and a line."""

    def __init__(self, status: HTTPStatus, line: str):
        super().__init__(line)
        self.status, self.line = status, line
