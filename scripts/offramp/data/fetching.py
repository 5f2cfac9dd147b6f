"""A file from an address, within bounds of time and size whatever the server does."""

import queue
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests

from offramp import OfframpError
from offramp.common.progress import bar

# An address that does not answer is given up after this many seconds and tried again once; three
# addresses that are all out of reach so take less than half a minute.
REACH_SECONDS = 4
TRIES = 2
PAUSE_SECONDS = 0.5
REDIRECTS = 10
# As many bytes must come within as many seconds, that is 9 kB a second.
CHUNK = 1 << 18
STALL_SECONDS = 30
LARGEST = 1 << 28


def fetch(address: str, path: Path) -> None:
    """Download an address to ``path`` with a progress bar, in at most TRIES tries.

    Raises OfframpError with the last try's reason; nothing is left at ``path`` then.
    """
    for attempt in range(TRIES):
        try:
            _save(address, path)
            return
        except OSError as error:
            path.unlink(missing_ok=True)
            reason = reason_of(error)
            time.sleep(PAUSE_SECONDS * (attempt + 1 < TRIES))
        except OfframpError:
            path.unlink(missing_ok=True)
            raise
    raise OfframpError(f"{reason} (tried {TRIES} times)")


def reason_of(error: Exception) -> str:
    """An error's words in one short line; what a server makes up is among them."""
    words = "".join(c if c.isprintable() else " " for c in str(error)).split()
    return " ".join(words)[:300] or type(error).__name__


def _save(address: str, path: Path) -> None:
    """Raises OSError for what another try may mend, OfframpError for a file that is too large."""
    items: queue.Queue = queue.Queue(maxsize=4)
    # No call of the network ends for sure: a name's look-up has no limit of its own, and a server
    # can send a byte now and then. So this thread watches the clock while that one asks.
    threading.Thread(target=_receive, args=(address, items), daemon=True).start()
    started = time.monotonic()
    total = _next(items, started + REACH_SECONDS, f"no answer within {REACH_SECONDS} seconds")
    slow = f"less than {CHUNK:,} bytes within {STALL_SECONDS} seconds"
    with (
        open(path, "wb") as out,
        bar(desc="download", total=total, unit="B", unit_scale=True) as shown,
    ):
        _check_fetched_size(total or 0)
        due, goal = time.monotonic() + STALL_SECONDS, CHUNK
        while (chunk := _next(items, due, slow)) is not None:
            out.write(chunk)
            shown.update(len(chunk))
            _check_fetched_size(out.tell())
            if out.tell() >= goal:
                due, goal = time.monotonic() + STALL_SECONDS, out.tell() + CHUNK


def _check_fetched_size(size: int) -> None:
    if size > LARGEST:
        raise OfframpError(f"larger than {LARGEST:,} bytes, which the archive is not")


def _next(items: queue.Queue, due: float, otherwise: str) -> Any:
    """What the other thread has next; TimeoutError with ``otherwise`` when it has nothing by then,
    OSError with its own reason when it failed."""
    try:
        item = items.get(timeout=max(0.0, due - time.monotonic()))
    except queue.Empty:
        raise TimeoutError(otherwise) from None
    if isinstance(item, Exception):
        raise OSError(reason_of(item)) from item
    return item


def _receive(address: str, items: queue.Queue) -> None:
    """Put the length of what an address serves (None when it is not told), its bytes piece by
    piece, and None at the end; or the error."""
    try:
        with _answer(address) as response:
            response.raise_for_status()
            items.put(response.raw.length_remaining)
            # Undecoded: a server may call the archive's own gzip an encoding, to be undone on
            # arrival.
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                items.put(chunk)
        items.put(None)
    except Exception as error:  # handed on to the thread that waits, whatever it is
        items.put(error)


def _answer(address: str) -> requests.Response:
    """The response to a GET, its body not yet read, past redirects, whose bodies are not either."""
    session = requests.Session()
    for _ in range(REDIRECTS + 1):
        request = session.prepare_request(
            requests.Request("GET", address, {"Accept-Encoding": "identity"})
        )
        settings = session.merge_environment_settings(address, {}, True, None, None)
        # Not `session.send`, which reads a redirect's body to its end.
        response = session.get_adapter(address).send(
            request, timeout=(REACH_SECONDS, STALL_SECONDS), **settings
        )
        if not response.is_redirect:
            return response
        response.close()
        address = urljoin(address, response.headers["Location"])
    raise requests.TooManyRedirects(f"more than {REDIRECTS} redirects")
