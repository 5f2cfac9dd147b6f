"""A folder of pictures per class, for examples/folder.yaml: discs, squares and triangles in any
colours, some grey, of several sizes and file types.

python examples/folder_pictures.py [FOLDER [PICTURES_PER_CLASS]]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("disc", "square", "triangle")
SEED = 7


def shape(name: str, draw: np.random.Generator) -> Image.Image:
    """One shape on a noisy ground; the smaller and paler, the harder."""
    side = int(draw.integers(36, 65))
    ground = draw.integers(60, 200, 3)
    noise = np.clip(ground + draw.normal(0, 20, (side, side, 3)), 0, 255).astype(np.uint8)
    picture = Image.fromarray(noise)
    colour = np.clip(ground + draw.choice([-1, 1], 3) * draw.integers(25, 140), 0, 255)
    radius = side * draw.uniform(0.15, 0.4)
    x, y = draw.uniform(radius, side - radius, 2)
    corners = {"square": 4, "triangle": 3}.get(name, 60)
    turn = draw.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(corners) / corners
    outline = [(x + radius * np.cos(a), y + radius * np.sin(a)) for a in turn]
    ImageDraw.Draw(picture).polygon(outline, fill=tuple(colour.tolist()))
    return picture.convert("L") if draw.random() < 0.1 else picture


def write(folder: Path, per_class: int) -> None:
    """Write the pictures, each into the folder of its class."""
    draw = np.random.default_rng(SEED)
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            ending = "jpg" if i % 4 == 0 else "png"
            shape(name, draw).save(folder / name / f"{i:04}.{ending}")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    write(Path(given.get(1, "data/shapes")), int(given.get(2, 500)))
