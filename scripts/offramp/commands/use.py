"""Looking at a policy, and using an exported one: what needs no tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offramp import OfframpError
from offramp.networks.finding import chosen_for, read_about
from offramp.scoring.policy import load_policy


def described(path: Path) -> dict[str, Any]:
    """A policy file in a few lines, each by its name."""
    policy, about = load_policy(path), read_about(path)
    chosen = chosen_for(path, about)
    limits = ", ".join("disabled" if t is None else f"{t:.4g}" for t in policy.thresholds)
    facts = {
        "network": f"{chosen.model} on {chosen.dataset}, weights of sha256 {chosen.sha256[:12]}",
        "criterion": policy.criterion,
        "thresholds": f"{limits} (exits 1 to {len(policy.thresholds)}; lower scores leave)",
    }
    if policy.temperatures:
        facts["temperatures"] = ", ".join(f"{t:.4g}" for t in policy.temperatures)
    for name in ("origin", "selection", "expected"):
        if about.get(name):
            facts[name] = ", ".join(f"{key} {value}" for key, value in about[name].items())
    return facts


def predict(folder: Path, images: Sequence[str]) -> list[dict[str, Any]]:
    """What an exported folder says of picture files, which are scaled to the network's size."""
    from offramp.inference.runner import Runner

    if not (folder / "manifest.json").exists():
        raise OfframpError(f"{folder}: no manifest.json; want a folder that `offramp export` wrote")
    try:
        runner = Runner(folder)
    except ValueError as error:
        raise OfframpError(f"{error}; export again") from None
    sample = runner.manifest["input"]
    if sample["dtype"] != "uint8":
        raise OfframpError(f"{folder}: takes no pictures but {sample['dtype']} {sample['shape']}")
    _, height, width, channels = sample["shape"]
    mode = "RGB" if channels == 3 else "L"
    pixels = np.stack([read_picture(path, (width, height), mode) for path in images])
    answers = zip(images, *(values.tolist() for values in runner(pixels)), strict=True)
    names = runner.manifest["classes"]
    return [
        {"image": image, "label": names[label], "exit": exit_, "score": score}
        for image, label, exit_, score in answers
    ]


def read_picture(path: str, size: tuple[int, int], mode: str) -> np.ndarray:
    """A picture file as uint8 (H, W, 3 of RGB or 1 of L), scaled to ``size`` (width, height)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert(mode).resize(size, Image.Resampling.BICUBIC))
            return pixels.reshape(size[1], size[0], -1)
    except UnidentifiedImageError:
        raise OfframpError(f"{path}: not a picture") from None
    except OSError as error:
        raise OfframpError(f"{path}: can't be read ({error.strerror or error})") from None
