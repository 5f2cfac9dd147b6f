"""A small image in a terminal."""

import numpy as np

SHADES = " .:-=+*#%@"
# Characters in a line; of larger images every second pixel is drawn, or every third, and so on.
WIDEST = 100


def drawn(image: np.ndarray, colours: bool) -> str:
    """An image, uint8 (H, W, 3), in H / 2 lines at most: two pixels a character in colours, else by
    brightness."""
    step = -(-max(image.shape[:2]) // WIDEST)
    image = image[::step, ::step]
    image = image[: max(len(image) // 2, 1) * 2]
    upper, lower = image[0::2], image[1::2] if len(image) > 1 else image
    if not colours:
        bright = np.stack([upper, lower]).mean(axis=(0, 3)) / 256 * len(SHADES)
        return "\n".join("".join(SHADES[int(b)] for b in row) for row in bright)
    lines = []
    for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
        pairs = zip(above, below, strict=True)
        cells = [f"\033[38;2;{_rgb(a)};48;2;{_rgb(b)}m\N{UPPER HALF BLOCK}" for a, b in pairs]
        lines.append("".join(cells) + "\033[0m")
    return "\n".join(lines)


def _rgb(pixel: list[int]) -> str:
    return ";".join(map(str, pixel))
