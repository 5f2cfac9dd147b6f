"""Servers that misbehave: each is left within bounds of time and size, and the next one asked."""

import itertools
import socketserver
import threading
import time

import pytest
from conftest import documented

from offramp import OfframpError
from offramp.data import fetching
from offramp.data.fetching import TRIES, fetch

OK = b"HTTP/1.1 200 OK\r\n"
BODY = bytes(range(256)) * 16


class Handler(socketserver.BaseRequestHandler):
    """Answers every request with the bytes of `server.pieces(path)`, a pause before each None."""

    def handle(self):
        request = self.request.recv(65_536)
        path = request.split()[1].decode()
        self.server.asked.append(path)
        try:
            for piece in self.server.pieces(path):
                if piece is None:
                    time.sleep(0.05)
                else:
                    self.request.sendall(piece)
        except OSError:
            pass


class Server(socketserver.ThreadingTCPServer):
    daemon_threads, block_on_close = True, False


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as made:
        made.asked = []
        made.address = f"http://127.0.0.1:{made.server_address[1]}"
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetching, "REACH_SECONDS", 0.4)
    monkeypatch.setattr(fetching, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(fetching, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(fetching, "CHUNK", 1_000)
    monkeypatch.setattr(fetching, "LARGEST", 100_000)


def dripped(beginning=b"", drop=b"x"):
    """A byte now and then, for ever."""
    yield beginning
    for _ in itertools.count():
        yield from (drop, None)


def endless(beginning, piece):
    yield beginning
    yield from itertools.repeat(piece)


MISBEHAVING = {
    "a byte now and then": (
        lambda _: dripped(OK + b"Content-Length: 5000\r\n\r\n"),
        "less than 1,000 bytes",
    ),
    "chunks of a byte": (
        lambda _: dripped(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        "less than 1,000 bytes",
    ),
    "a chunk's length without end": (
        lambda _: dripped(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
        "less than 1,000 bytes",
    ),
    "headers without end": (lambda _: dripped(OK, b"X-A: b\r\n"), "no answer within 0.4 seconds"),
    "no header": (lambda _: dripped(), "no answer within 0.4 seconds"),
    "silence": (
        lambda _: [OK + b"Content-Length: 9\r\n\r\nx", *[None] * 40],
        "less than|timed out",
    ),
    "an archive without end": (lambda _: endless(OK + b"\r\n", BODY), "larger than 100,000 bytes"),
    "chunks without end": (
        lambda _: endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + BODY + b"\r\n"),
        "larger than 100,000 bytes",
    ),
    "a length beyond reason": (
        lambda _: endless(OK + b"Content-Length: 999999999999999\r\n\r\n", BODY),
        "larger than 100,000 bytes",
    ),
    "redirects in a circle": (
        lambda path: [b"HTTP/1.1 302 Found\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n"],
        "more than 10 redirects",
    ),
    "redirects with bodies without end": (
        lambda path: endless(
            b"HTTP/1.1 302 Found\r\nLocation: /" + b"a" * len(path) + b"\r\n\r\n", BODY
        ),
        "more than 10 redirects",
    ),
    "a redirect to a file": (
        lambda _: [b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"],
        "No connection adapters",
    ),
    "less than its length": (
        lambda _: [OK + b"Content-Length: 5000\r\n\r\n" + BODY],
        "IncompleteRead",
    ),
    "two lengths": (lambda _: [OK + b"Content-Length: 5, 9\r\n\r\nabcde"], "Content-Length"),
    "no HTTP": (lambda _: [b"SSH-2.0-OpenSSH_9.2\r\n"], "SSH-2.0"),
}


@pytest.mark.parametrize("pieces, words", MISBEHAVING.values(), ids=MISBEHAVING)
def test_a_server_that_misbehaves_is_left_soon_and_leaves_nothing(tmp_path, server, pieces, words):
    server.pieces = pieces
    start = time.monotonic()
    with pytest.raises(OfframpError, match=words) as caught:
        fetch(f"{server.address}/a", tmp_path / "file")
    if words.endswith("bytes"):
        assert documented(str(caught.value))
    assert time.monotonic() - start < TRIES * (0.4 + 0.3) + 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [b"abc", b"-5", b"", b"12 apples"])
def test_a_length_that_is_none_does_not_matter(tmp_path, server, length):
    server.pieces = lambda _: [OK + b"Content-Length: " + length + b"\r\n\r\n" + BODY]
    fetch(f"{server.address}/a", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_slow_server_that_keeps_the_pace_is_waited_for(tmp_path, server):
    def slowly(_):
        yield OK + b"\r\n"
        for start in range(0, len(BODY), 256):
            yield from (BODY[start : start + 256], None)

    server.pieces = slowly  # 0.8 seconds in all; 0.3 may pass for 1,000 bytes
    fetch(f"{server.address}/a", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_redirects_are_followed(tmp_path, server):
    def pages(path):
        found = OK + b"Content-Length: 4\r\n\r\ndata"
        return [found if path == "/b/c" else b"HTTP/1.1 301 Moved\r\nLocation: /b/c\r\n\r\n"]

    server.pieces = pages
    fetch(f"{server.address}/a", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"data"
    assert server.asked == ["/a", "/b/c"]


def test_what_a_server_says_is_shown_in_one_short_printable_line(tmp_path, server):
    server.pieces = lambda _: [b"HTTP/1.1 500 \x1b[31mred" + b"!" * 5000 + b"\r\n\r\n"]
    with pytest.raises(OfframpError) as caught:
        fetch(f"{server.address}/a", tmp_path / "file")
    message = str(caught.value)
    assert "500" in message and message.isprintable() and len(message) < 350
