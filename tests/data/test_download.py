"""Downloading: every kind of source, every way it can fail, and nothing left behind."""

import bz2
import errno
import gzip
import hashlib
import http.server
import io
import lzma
import os
import pickle
import re
import socket
import tarfile
import threading
import time
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import documented
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from offramp import OfframpError
from offramp.data import download, fetching
from offramp.data.download import get_dataset
from offramp.data.fetching import TRIES, fetch

ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
META = "batches.meta"
PER_BATCH = 20


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch):
    """Neither the user's archives nor a proxy have a say in these tests."""
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """The files of a CIFAR-10 of 120 images. Few grey levels, so that gzip really compresses them
    and a flipped bit breaks its code tables."""
    random = np.random.default_rng(0)
    files = {}
    for name in BATCHES:
        data = random.integers(0, 6, (PER_BATCH, 3072), dtype=np.uint8)
        labels = random.integers(0, 10, PER_BATCH).tolist()
        files[name] = pickle.dumps({"data": data, "labels": labels, "batch_label": name})
    files[META] = pickle.dumps({"label_names": [f"class {c}" for c in range(10)]})
    return files


@pytest.fixture(autouse=True)
def small_cifar10(monkeypatch, contents):
    """The sums of the small files are taken for the official ones, here and by torchvision."""
    sums = {name: hashlib.md5(data).hexdigest() for name, data in contents.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[n, sums[n]] for n in BATCHES[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[n, sums[n]] for n in BATCHES[5:]])
    meta = {"filename": META, "key": "label_names", "md5": sums[META]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    official = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    small = download.OFFICIAL["cifar10"]._replace(sums=official)
    monkeypatch.setitem(download.OFFICIAL, "cifar10", small)


def packed(files: dict[str, bytes], extra=()) -> bytes:
    """A gzipped tar of the files in their folder; ``extra`` are members put before them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member, data in extra:
            tar.addfile(member, io.BytesIO(data))
        for name, data in files.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archive(contents) -> bytes:
    return packed(contents)


@pytest.fixture
def data(tmp_path) -> Path:
    """Where datasets go; in a folder of its own, so that anything left over shows."""
    return tmp_path / "data"


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """Where local sources lie."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def archive_in(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / ARCHIVE).write_bytes(content)
    return folder / ARCHIVE


def assert_complete(data: Path, contents) -> None:
    """The four arrays lie in data/cifar10, hold what was packed, and nothing else lies in data."""
    names = [f"{pool}_{what}.npy" for pool in ("train", "test") for what in ("images", "labels")]
    assert sorted(p.relative_to(data).as_posix() for p in data.rglob("*")) == sorted(
        ["cifar10", *(f"cifar10/{name}" for name in names)]
    )
    entries = {name: pickle.loads(contents[name]) for name in BATCHES}
    for pool, batches in (("train", BATCHES[:5]), ("test", BATCHES[5:])):
        images = np.load(data / "cifar10" / f"{pool}_images.npy")
        labels = np.load(data / "cifar10" / f"{pool}_labels.npy")
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        assert images.shape == (PER_BATCH * len(batches), 32, 32, 3)
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        np.testing.assert_array_equal(flat, np.vstack([entries[b]["data"] for b in batches]))
        assert labels.tolist() == [label for b in batches for label in entries[b]["labels"]]


def failure(data: Path, sources) -> str:
    """The message when no source serves: it names all that was tried and all three ways out, and
    nothing is left in data."""
    with pytest.raises(OfframpError) as caught:
        get_dataset("cifar10", [str(source) for source in sources], data / "cifar10")
    message = str(caught.value)
    for source in sources:
        assert f"{source}: " in message
    for way_out in ("dataset.sources", "OFFRAMP_DATA", "make demo"):
        assert way_out in message
    assert ARCHIVE in message and documented(message)
    assert list(data.rglob("*")) == []
    return message


def test_an_archive_is_a_source(data, elsewhere, archive, contents):
    get_dataset("cifar10", [str(archive_in(elsewhere, archive))], data / "cifar10")
    assert_complete(data, contents)


def test_a_folder_that_holds_the_archive_is_a_source(data, elsewhere, archive, contents):
    archive_in(elsewhere, archive)
    get_dataset("cifar10", [str(elsewhere)], data / "cifar10")
    assert_complete(data, contents)


def test_a_folder_that_holds_the_extracted_folder_is_a_source(data, elsewhere, contents):
    (elsewhere / FOLDER).mkdir()
    for name, content in contents.items():
        (elsewhere / FOLDER / name).write_bytes(content)
    get_dataset("cifar10", [str(elsewhere)], data / "cifar10")
    assert_complete(data, contents)
    assert sorted(p.name for p in (elsewhere / FOLDER).iterdir()) == sorted(contents)


def test_an_archive_may_have_any_md5_sum_of_its_own(data, elsewhere, archive, contents):
    again = gzip.compress(gzip.decompress(archive), compresslevel=1)
    assert again != archive
    get_dataset("cifar10", [str(archive_in(elsewhere, again))], data / "cifar10")
    assert_complete(data, contents)


def test_a_dataset_fetched_again_replaces_the_old_arrays(data, elsewhere, archive, contents):
    (data / "cifar10").mkdir(parents=True)
    (data / "cifar10" / "train_labels.npy").write_bytes(b"old")
    get_dataset("cifar10", [str(archive_in(elsewhere, archive))], data / "cifar10")
    assert_complete(data, contents)


def test_the_folder_may_lie_on_another_disk(data, elsewhere, archive, contents, monkeypatch):
    disk, replace = elsewhere / "disk", Path.replace
    (disk / "far").mkdir(parents=True)
    data.mkdir(exist_ok=True)
    (data / "cifar10").symlink_to(disk / "far")

    def within_a_disk(self, target):
        sides = {path.resolve().is_relative_to(disk) for path in (self, Path(target))}
        if len(sides) > 1:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", within_a_disk)
    get_dataset("cifar10", [str(archive_in(elsewhere, archive))], data / "cifar10")
    assert (data / "cifar10").is_symlink()
    (data / "cifar10").unlink()
    (disk / "far").rename(data / "cifar10")
    assert_complete(data, contents)


def test_offramp_data_comes_before_all_sources(data, elsewhere, archive, contents, monkeypatch):
    archive_in(elsewhere, archive)
    monkeypatch.setenv("OFFRAMP_DATA", str(elsewhere))
    monkeypatch.setattr(download, "fetch", None)  # a source that is asked for would fail loudly
    get_dataset("cifar10", ["http://127.0.0.1/never"], data / "cifar10")
    assert_complete(data, contents)


def test_an_offramp_data_without_the_archive_does_not_hide_the_sources(
    data, elsewhere, archive, contents, monkeypatch
):
    monkeypatch.setenv("OFFRAMP_DATA", str(elsewhere / "missing"))
    get_dataset("cifar10", [str(archive_in(elsewhere, archive))], data / "cifar10")
    assert_complete(data, contents)


def test_a_failing_offramp_data_is_among_those_tried(data, elsewhere, monkeypatch):
    monkeypatch.setenv("OFFRAMP_DATA", str(elsewhere))
    message = failure(data, [elsewhere / "missing"])
    assert f"{elsewhere}: holds neither {ARCHIVE} nor {FOLDER}/" in message
    assert "no such file or folder" in message


def test_without_any_source_the_ways_out_are_named(data):
    assert "dataset.sources is empty" in failure(data, [])


def test_after_a_source_that_fails_the_next_is_tried(data, elsewhere, archive, contents):
    broken = archive_in(elsewhere / "broken", archive[: len(archive) // 2])
    good = archive_in(elsewhere / "good", archive)
    get_dataset("cifar10", [str(broken), str(good)], data / "cifar10")
    assert_complete(data, contents)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.99])
def test_a_truncated_archive_is_refused(data, elsewhere, archive, share):
    failure(data, [archive_in(elsewhere, archive[: int(share * len(archive))])])


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95])
def test_a_corrupted_gzip_is_refused(data, elsewhere, archive, share):
    start = int(share * len(archive))
    corrupted = archive[:start] + bytes(b ^ 0xFF for b in archive[start : start + 64])
    failure(data, [archive_in(elsewhere, corrupted + archive[start + 64 :])])


def test_a_gzip_that_breaks_inside_a_file_is_refused(data, elsewhere, archive):
    """zlib has an error of its own for this, raised while a member is copied out: the first 45 %
    are good, then follows a deflate block of the type that does not exist."""
    tar = gzip.decompress(archive)
    # wbits 31 is gzip; a full flush ends at a whole byte, so that the next block starts there.
    squeeze = zlib.compressobj(wbits=31)
    good = squeeze.compress(tar[: int(0.45 * len(tar))]) + squeeze.flush(zlib.Z_FULL_FLUSH)
    failure(data, [archive_in(elsewhere, good + b"\xff" * 4096)])


@pytest.mark.parametrize(
    "content",
    [b"no archive", b"<html>moved</html>" * 50, gzip.compress(b"x")],
    # gzip writes the time of day: as a name it would differ between two workers
    ids=["text", "page", "gzip"],
)
def test_what_is_no_archive_is_refused(data, elsewhere, content):
    failure(data, [archive_in(elsewhere, content)])


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", META])
def test_a_file_that_is_not_the_official_one_is_refused(data, elsewhere, contents, name):
    changed = {**contents, name: contents[name] + b"\0"}
    message = failure(data, [archive_in(elsewhere, packed(changed))])
    assert f"its {name} is not the official one by its sha256" in message


class Payload:
    """Unpickled, it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_that_only_has_the_official_md5_sum_is_not_unpickled(
    data, elsewhere, contents, monkeypatch
):
    bad = pickle.dumps(Payload(elsewhere / "made"))
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", hashlib.md5(bad).hexdigest()]])
    source = archive_in(elsewhere, packed({**contents, "test_batch": bad}))
    assert "its test_batch is not the official one" in failure(data, [source])
    assert not (elsewhere / "made").exists()


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", META])
def test_a_missing_file_is_refused(data, elsewhere, contents, name):
    fewer = {key: value for key, value in contents.items() if key != name}
    assert f"lacks {name}" in failure(data, [archive_in(elsewhere, packed(fewer))])


def test_an_extracted_folder_with_a_wrong_file_is_refused_and_left_alone(data, elsewhere, contents):
    (elsewhere / FOLDER).mkdir()
    for name, content in contents.items():
        (elsewhere / FOLDER / name).write_bytes(content if name != "data_batch_2" else b"other")
    assert "its data_batch_2 is not the official one" in failure(data, [elsewhere])
    assert sorted(p.name for p in (elsewhere / FOLDER).iterdir()) == sorted(contents)


PACKED = {
    "cifar-10-python.tar": lambda archive: gzip.decompress(archive),
    "cifar-10-python.tgz": lambda archive: archive,
    "cifar-10-python (1).tar.gz": lambda archive: archive,
    "cifar-10-python.tar.bz2": lambda archive: bz2.compress(gzip.decompress(archive)),
    "cifar-10-python.tar.xz": lambda archive: lzma.compress(gzip.decompress(archive), preset=0),
}


@pytest.mark.parametrize("named", ["archive", "folder"])
@pytest.mark.parametrize("name, pack", PACKED.items(), ids=PACKED)
def test_an_archive_packed_or_named_otherwise_is_a_source(
    data, elsewhere, archive, contents, name, pack, named
):
    (elsewhere / name).write_bytes(pack(archive))
    source = elsewhere / name if named == "archive" else elsewhere
    get_dataset("cifar10", [str(source)], data / "cifar10")
    assert_complete(data, contents)


@pytest.mark.parametrize("place", [".", FOLDER, "deeper/still"])
def test_the_unpacked_files_are_a_source_wherever_they_lie_in_what_is_named(
    data, elsewhere, contents, place, monkeypatch
):
    """The folder itself, its parent, and an archive with other folders in it."""
    (elsewhere / place).mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (elsewhere / place / name).write_bytes(content)
    source = elsewhere
    if place == "deeper/still":
        source = elsewhere / "mine.tar.gz"
        with tarfile.open(source, "w:gz") as tar:
            tar.add(elsewhere / "deeper", "./deeper")
    monkeypatch.setenv("OFFRAMP_DATA", str(source))
    get_dataset("cifar10", [], data / "cifar10")
    assert_complete(data, contents)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"<html>moved</html>", f"is a web page, not {ARCHIVE}"),
        (b"", f"is empty, not {ARCHIVE}"),
        (b"PK\x03\x04" + bytes(99), "is a zip archive, not .*; unpack it and name its folder"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"\x01\xff" * 99, "is something else, not"),
        (packed({"data_batch_1.bin": b"x"}), f"holds none of the files of {ARCHIVE}"),
    ],
    ids=["page", "empty", "zip", "pointer", "noise", "the binary version"],
)
def test_what_is_no_such_archive_is_told_by_its_content(data, elsewhere, content, words):
    message = failure(data, [archive_in(elsewhere, content)])
    assert re.search(words, message) and documented(message)


def header_member(size: int, kind=tarfile.REGTYPE):
    member = tarfile.TarInfo("././@LongLink")
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "tar",
    [
        header_member(2_000_000) + bytes(2_000_000),
        header_member(2_000_000, tarfile.GNUTYPE_LONGNAME) + bytes(2_000_000),
        # Without the bytes: nothing may read on in search of so many.
        header_member(10**17),
    ],
    ids=["a file", "a name", "a lie"],
)
def test_an_archive_that_unpacks_without_end_is_left(data, elsewhere, monkeypatch, tar):
    monkeypatch.setattr(download, "LARGEST_UNPACKED", 1_000_000)
    message = failure(data, [archive_in(elsewhere, gzip.compress(tar + bytes(10_240)))])
    assert "unpacks to more than 1,000,000 bytes" in message and documented(message)


def file_member(name: str, content: bytes):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def link_member(name: str, target: str, kind: bytes):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def all_files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_members_that_point_outside_are_not_written(data, elsewhere, contents, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / "victim"
    victim.write_text("untouched")
    names = ["../evil", "../../evil", f"{FOLDER}/../../../evil", str(outside / "evil")]
    names += ["../data_batch_1", f"{FOLDER}/../data_batch_1", "../outside/victim"]
    extra = [file_member(name, b"evil") for name in names]
    extra += [
        link_member(f"{FOLDER}/link", str(outside), tarfile.SYMTYPE),
        file_member(f"{FOLDER}/link/evil", b"evil"),
        # A link under a wanted name, through which the file of that name would be written.
        link_member(f"{FOLDER}/data_batch_1", str(victim), tarfile.SYMTYPE),
        link_member(f"{FOLDER}/data_batch_2", str(victim), tarfile.LNKTYPE),
        link_member(FOLDER, str(outside), tarfile.SYMTYPE),
    ]
    source = archive_in(elsewhere, packed(contents, extra))
    before = all_files(tmp_path)
    get_dataset("cifar10", [str(source)], data / "cifar10")
    assert_complete(data, contents)
    assert all_files(tmp_path) - all_files(data) - {data} == before
    assert victim.read_text() == "untouched"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_or_pipe_in_place_of_a_file_is_not_followed(data, elsewhere, contents, kind):
    # The link's target has the right content, and is still not the archive's to hand over.
    (elsewhere / "test_batch").write_bytes(contents["test_batch"])
    fewer = {name: content for name, content in contents.items() if name != "test_batch"}
    extra = [link_member(f"{FOLDER}/test_batch", str(elsewhere / "test_batch"), kind)]
    assert "lacks test_batch" in failure(data, [archive_in(elsewhere, packed(fewer, extra))])


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.pages`: path -> (status, headers, body, bytes really sent)."""

    def do_GET(self):
        self.server.asked.append(self.path)
        status, headers, body, sent = self.server.pages.get(self.path, (404, {}, b"", None))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:sent])

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server():
    """A local server with an `address` of its own; nothing on it yet."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.pages, made.asked = {}, []
        made.address = f"http://127.0.0.1:{made.server_port}"
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def closed_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        return listening.getsockname()[1]


def test_an_address_is_a_source(data, server, archive, contents):
    server.pages["/a.tar.gz"] = (200, {}, archive, None)
    get_dataset("cifar10", [f"{server.address}/a.tar.gz"], data / "cifar10")
    assert_complete(data, contents)
    assert server.asked == ["/a.tar.gz"]


def test_an_address_that_does_not_say_its_length_is_a_source(data, server, archive, contents):
    server.pages["/a.tar.gz"] = (200, {"Content-Length": None}, archive, None)
    get_dataset("cifar10", [f"{server.address}/a.tar.gz"], data / "cifar10")
    assert_complete(data, contents)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_a_server_that_calls_the_gzip_of_the_archive_an_encoding_is_a_source(
    data, server, archive, contents, encoding
):
    # As Apache's AddEncoding does for names ending in .gz: the bytes are to be kept as they are.
    server.pages["/a.tar.gz"] = (200, {"Content-Encoding": encoding}, archive, None)
    get_dataset("cifar10", [f"{server.address}/a.tar.gz"], data / "cifar10")
    assert_complete(data, contents)


def test_after_a_404_the_next_address_is_tried(data, server, archive, contents):
    server.pages["/there"] = (200, {}, archive, None)
    sources = [f"{server.address}/gone", f"{server.address}/there"]
    get_dataset("cifar10", sources, data / "cifar10")
    assert_complete(data, contents)
    assert server.asked[-1] == "/there"


def test_a_404_everywhere_is_told(data, server):
    assert "404" in failure(data, [f"{server.address}/gone"])


def test_a_page_in_place_of_the_archive_is_refused(data, server):
    server.pages["/login"] = (200, {}, b"<html>log in first</html>", None)
    failure(data, [f"{server.address}/login"])


def test_a_connection_cut_in_mid_body_is_tried_again_and_leaves_nothing(data, server, archive):
    server.pages["/cut"] = (200, {}, archive, len(archive) // 2)
    failure(data, [f"{server.address}/cut"])
    assert server.asked == ["/cut"] * TRIES


def test_a_fetch_that_fails_leaves_no_file(tmp_path, server, archive):
    server.pages["/cut"] = (200, {}, archive, len(archive) // 2)
    with pytest.raises(OfframpError, match=f"tried {TRIES} times"):
        fetch(f"{server.address}/cut", tmp_path / "part")
    assert list(tmp_path.iterdir()) == []


def test_a_connection_cut_once_is_mended_by_the_second_try(data, server, archive, contents):
    server.pages["/a"] = (200, {}, archive, len(archive) // 2)

    class Mending(list):
        def append(self, path):
            super().append(path)
            if len(self) == 2:
                server.pages["/a"] = (200, {}, archive, None)

    server.asked = Mending()
    get_dataset("cifar10", [f"{server.address}/a"], data / "cifar10")
    assert_complete(data, contents)
    assert len(server.asked) == 2


def test_after_a_cut_download_a_local_archive_is_tried(data, elsewhere, server, archive, contents):
    server.pages["/cut"] = (200, {}, archive, len(archive) // 2)
    local = archive_in(elsewhere, archive)
    get_dataset("cifar10", [f"{server.address}/cut", str(local)], data / "cifar10")
    assert_complete(data, contents)


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/a", "http://", "http://[::bad/a"])
def test_an_address_that_is_none_is_told(data, address):
    failure(data, [address])


def test_nobody_at_the_address_is_told_in_less_than_thirty_seconds(data, closed_port):
    """A closed port and a server that takes the call and never speaks."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        start = time.monotonic()
        message = failure(data, [f"http://127.0.0.1:{closed_port}/a", f"http://127.0.0.1:{port}/a"])
        assert time.monotonic() - start < 30
    assert "no answer within" in message


def test_three_silent_addresses_are_given_up_in_less_than_thirty_seconds():
    # The test above waits for one; this is the sum for three, with the pause between tries.
    assert 3 * TRIES * (fetching.REACH_SECONDS + fetching.PAUSE_SECONDS) < 30


def test_the_digits_need_no_source_and_each_pixel_becomes_a_square(data):
    get_dataset("digits", [], data / "digits")
    images = np.load(data / "digits" / "all_images.npy")
    labels = np.load(data / "digits" / "all_labels.npy")
    assert sorted(p.name for p in (data / "digits").iterdir()) == [
        "all_images.npy",
        "all_labels.npy",
    ]
    original = load_digits()
    assert (images.dtype, images.shape) == (np.uint8, (1797, 32, 32, 3))
    assert labels.tolist() == original.target.tolist()
    for i in (0, 700, 1796):
        for y, x in ((0, 2), (3, 4), (7, 5)):
            square = images[i, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            assert (square == round(original.images[i, y, x] * 255 / 16)).all()
