"""The gallery's pictures: figures of real runs, and their pages in a browser, in light and dark."""

import shutil
import subprocess
import tempfile
from pathlib import Path

# What is shown of each run, in this order.
FIGURES = {
    "branchynet": (
        *("report_cutoff", "time_accuracy", "time_cutoff", "accuracy_cutoff", "exit_shares"),
        *("target", "targets", "entropy", "prediction", "reliability", "leaving", "confusion"),
        *("agreement", "frontier", "criteria"),
    ),
    "cpunet": ("time_accuracy", "baseline"),
}
# The pages of a run, with the size of the window in pixels.
PAGES = {"explorer": (1280, 2000), "summary": (1000, 1400)}
# Chromium's numbers for the colours that a system prefers.
SCHEMES = {"light": 1, "dark": 0}
WIDTH = 830  # of a picture, that of a README on the web
COLOURS = 192


def take_gallery(runs: dict[str, Path], gallery: Path) -> None:
    """Take the pictures of the named runs; what a run did not make stays as it is. Without
    Chromium the pages are left as they were."""
    gallery.mkdir(parents=True, exist_ok=True)
    for network, results in runs.items():
        for name in FIGURES.get(network, ()):
            figure = results / f"figures/{name}.png"
            if figure.exists():
                shrink(figure, gallery / f"{network}_{name}.png")
    browser = shutil.which("chromium")
    for page, size in PAGES.items():
        path = runs.get("branchynet", Path()) / f"{page}.html"
        if browser and path.exists():
            for scheme in SCHEMES:
                shoot(browser, path, size, scheme, gallery / f"{page}_{scheme}.png")


def shrink(picture: Path, place: Path) -> None:
    """A picture as wide as a page, in few colours."""
    from PIL import Image  # rendering the pages, which needs the names above, can do without it

    with Image.open(picture) as full:
        height = round(full.height * WIDTH / full.width)
        small = full.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
        small.quantize(COLOURS, dither=Image.Dither.NONE).save(place, optimize=True)


def shoot(browser: str, page: Path, size: tuple[int, int], scheme: str, place: Path) -> None:
    """A picture of the top of a page, as a browser shows it to someone who prefers a scheme."""
    with tempfile.TemporaryDirectory() as folder:
        screenshot = Path(folder, "page.png")
        options = ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"]
        options += [f"--user-data-dir={folder}", "--virtual-time-budget=5000"]
        options += [f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"]
        options += [f"--window-size={size[0]},{size[1]}", f"--screenshot={screenshot}"]
        command = [browser, *options, page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        shrink(screenshot, place)
