"""What a file is by its first bytes, whatever its name says."""

from pathlib import Path

HEAD = 512
SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"(\xb5/\xfd", "a zstd archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PAR1", "a Parquet table"),
    (b"GGUF", "a GGUF file"),
)
PAGE_BEGINNINGS = (b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<error")


def kind_of(path: str | Path) -> str | None:
    """What a file is, with its article ("a zip archive", "empty"); None when it is none of those
    known here. Raises OSError when it can't be read."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head.strip(b"\0"):
        return "nothing but zero bytes" if head else "empty"
    for beginning, kind in SIGNATURES:
        if head.startswith(beginning):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.lower().startswith(PAGE_BEGINNINGS):
        return "a web page"
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        words = " ".join(text[:40].decode("ascii", "replace").split())
        return f"a text file ({words!r})"
    return None
