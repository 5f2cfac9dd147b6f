"""Folders of pictures: the same samples as torchvision's ImageFolder, and how faults are named."""

import shutil

import numpy as np
import pytest
from conftest import documented
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import Resize

from offramp import OfframpError
from offramp.data.datasets import SPLITS, dataset_of, split_sizes, text_of
from offramp.data.own import described
from offramp.data.splits import load_images, open_split
from offramp.data.taking import take_own

DRAW = np.random.default_rng(5)
ENDINGS = ("png", "jpg", "bmp", "webp", "tiff", "JPEG", "ppm")


def picture(size=(8, 6)) -> Image.Image:
    """Width and height, as PIL has them."""
    return Image.fromarray(DRAW.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def pictures(folder, classes=("cat", "dog", "über"), each=14):
    for name in classes:
        (folder / name / "deeper").mkdir(parents=True)
        for i in range(each):
            place = folder / name / ("deeper" if i % 3 == 0 else ".")
            picture().save(place / f"{i}.{ENDINGS[i % len(ENDINGS)]}")
        (folder / name / "notes.txt").write_text("no picture")
    return folder


def config(path, **more) -> dict:
    return {"name": "folder", "path": str(path), "validation": None, **more}


def opened(folder, data) -> dict:
    known = text_of(described(data))
    place = folder / "data" / dataset_of(known).name
    take_own(data, known, place)
    return {name: open_split(place, known, name, data["validation"]) for name in SPLITS}


def message(call, *arguments) -> str:
    with pytest.raises(OfframpError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value) and documented(str(caught.value)), caught.value
    return str(caught.value)


def test_samples_and_classes_are_those_of_torchvisions_image_folder(tmp_path):
    root = pictures(tmp_path / "pets")
    wanted = ImageFolder(str(root))
    dataset = described(config(root))
    assert list(dataset.names) == wanted.classes and dataset.shape == (6, 8, 3)
    assert split_sizes(text_of(dataset), None) == {"train": 30, "val": 4, "test": 8}
    splits = opened(tmp_path, config(root))
    assert sorted(np.concatenate([s.order for s in splits.values()])) == list(range(42))
    for split in splits.values():
        for place, label in zip(split.order, split.labels, strict=True):
            image, target = wanted[place]
            assert label == target
            np.testing.assert_array_equal(split.images[place], np.asarray(image))
    x = load_images(splits["val"], slice(0, 2), "cpu")
    assert x.shape == (2, 3, 6, 8) and 0 <= float(x.min()) < float(x.max()) <= 1


def test_all_are_brought_to_one_size_as_torchvision_does(tmp_path):
    root = pictures(tmp_path / "pets")
    picture((31, 17)).save(root / "cat/large.png")
    for size, shape in ((5, (5, 5)), ([4, 9], (4, 9))):
        splits = opened(tmp_path, config(root, size=size))
        resize, wanted = Resize(shape), ImageFolder(str(root))
        for split in splits.values():
            for place in split.order:
                image = np.asarray(resize(wanted[place][0]))
                np.testing.assert_array_equal(split.images[place], image)


def test_folders_of_their_own_are_whole_splits(tmp_path):
    for split in SPLITS:
        pictures(tmp_path / "pets" / split, each=5)
    (tmp_path / "pets/.cache").mkdir()
    splits = opened(tmp_path, config(tmp_path / "pets"))
    for name, split in splits.items():
        wanted = ImageFolder(str(tmp_path / "pets" / name))
        assert sorted(split.order) == list(range(15))
        for place in split.order:
            np.testing.assert_array_equal(split.images[place], np.asarray(wanted[place][0]))


def test_a_folder_is_known_by_its_content_alone(tmp_path):
    root = pictures(tmp_path / "pets")
    first = described(config(root))
    moved = root.rename(tmp_path / "animals")
    assert described(config(moved)) == first
    (moved / "cat/notes.txt").write_text("other notes")
    assert described(config(moved)) == first
    picture().save(moved / "cat/1.jpg")
    changed = described(config(moved))
    (moved / "cat/1.jpg").rename(moved / "dog/one.jpg")
    assert len({first.name, changed.name, described(config(moved)).name}) == 3
    assert described(config(moved, size=8)).name != described(config(moved, size=9)).name


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_grey_alpha_and_palette_become_rgb(tmp_path, mode):
    root = pictures(tmp_path / "pets")
    odd = picture().convert(mode)
    odd.save(root / "cat/odd.tiff")
    splits = opened(tmp_path, config(root))
    place = ImageFolder(str(root)).imgs.index((str(root / "cat/odd.tiff"), 0))
    np.testing.assert_array_equal(splits["val"].images[place], np.asarray(odd.convert("RGB")))


@pytest.mark.parametrize("raw", [b"", b"nonsense", b"cut"])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_picture_that_can_not_be_read_is_named(tmp_path, raw, ending):
    root = pictures(tmp_path / "pets")
    bad = root / f"dog/bad.{ending}"
    picture((90, 90)).save(bad)
    bad.write_bytes(bad.read_bytes()[:600] if raw == b"cut" else raw)
    found = message(opened, tmp_path, config(root, size=8))
    assert found.startswith(f"{bad}: not a readable picture (")
    assert not list((tmp_path / "data").rglob("*"))


def test_a_link_to_nowhere_is_named(tmp_path):
    root = pictures(tmp_path / "pets")
    (root / "dog/lost.png").symlink_to(tmp_path / "nowhere.png")
    assert message(described, config(root)) == (
        f"{root}/dog/lost.png: can't be read (No such file or directory)"
    )


def test_a_picture_of_another_size_or_depth_is_named(tmp_path):
    root = pictures(tmp_path / "pets")
    picture((9, 6)).save(root / "dog/wide.png")
    found = message(opened, tmp_path, config(root))
    assert found.startswith(f"{root}/dog/wide.png: 6 x 9 pixels, where the first picture has 6 x 8")
    deep = Image.fromarray(np.full((6, 8), 40_000, np.uint16))
    deep.save(root / "dog/wide.png")
    found = message(opened, tmp_path, config(root))
    assert found.startswith(f"{root}/dog/wide.png: I;16 pixels of more than 8 bits")


def test_folders_that_hold_no_such_data_are_named(tmp_path):
    root = tmp_path / "pets"
    assert message(described, config(root)).startswith(f"{root}: not a folder that can be read (No")
    root.mkdir()
    assert message(described, config(root)).startswith(f"{root}: no folders in it; want one per")
    pictures(root, ("cat",))
    assert message(described, config(root)).startswith(
        f"{root}: 1 folders in it; want one per class"
    )
    (root / "dog").mkdir()
    assert message(described, config(root)).startswith(f"{root}/dog: no picture in it (want .jpg")
    (root / "dog").rmdir()
    (root / "cat").rename(tmp_path / "cat")
    pictures(root / "train", each=3)
    assert message(described, config(root)).startswith(f"{root}: holds train, but no test; want")
    pictures(root / "test", ("cat", "dog"), each=3)
    found = message(described, config(root))
    assert (
        found == f"{root}: class über is in train, but not in test; want the same folders in each"
    )
    assert message(described, config(None) | {"path": None}).startswith("dataset.path: missing")
    assert message(described, {"name": "folder", "path": "x", "files": "y"}).startswith(
        "dataset.files: only for arrays, not for folder"
    )


def test_a_test_folder_that_is_a_copy_is_refused(tmp_path):
    pictures(tmp_path / "pets/train")
    shutil.copytree(tmp_path / "pets/train", tmp_path / "pets/test")
    found = message(described, config(tmp_path / "pets"))
    assert found.startswith(f"{tmp_path}/pets: train and test hold the same pictures;")


def test_what_is_brought_to_another_size_is_not_refused_for_its_own(tmp_path):
    root = pictures(tmp_path / "pets")
    assert described(config(root, size=[3, 4])).input_shape == (3, 3, 4)
