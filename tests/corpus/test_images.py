"""Images from anywhere: what is read of files, folders and columns, and what is refused."""

from __future__ import annotations

import builtins
import threading
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from ligo_dist.corpus import find_images, open_images
from ligo_dist.runtime.errors import DataError
from pictures import PARQUET, build_images, encoded, image_config, parquet_of_pictures, small_picture

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
"""Grey values with black and nearly white."""


def _of_mode(mode: str) -> Image.Image:
    """The ramp as an image of that mode."""
    if mode.startswith("I;16"):
        return Image.fromarray((RAMP.astype(np.uint16) * 257).astype(">u2" if mode == "I;16B" else "<u2"))
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(RAMP), Image.new("L", (8, 8), 7)])
    if mode == "P":
        image = Image.fromarray(255 - RAMP).convert("P")
        image.putpalette([255 - value for value in range(256) for _ in range(3)])
        return image
    return Image.fromarray(RAMP).convert("RGB").convert(mode)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("I;16", "png"), ("I;16", "tif"), ("I;16B", "tif"), ("I;16", "pgm"), ("L", "png"), ("LA", "png"),
        ("P", "png"), ("P", "gif"), ("RGB", "png"), ("RGBA", "png"), ("CMYK", "tif"),
    ],
)  # fmt: skip
def test_every_mode_keeps_its_grey_values(mode: str, suffix: str, channels: int, tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        picture = _of_mode(mode).rotate(90 * number)
        picture.save(tmp_path / "pictures" / name / f"0.{suffix}")
    source = find_images("images", [], str(tmp_path / "pictures"), None, "train", "image", None)
    images = list(open_images(source, "image", "label", 8, channels, False, tmp_path))
    for image, expected in zip(images, (RAMP, np.rot90(RAMP)), strict=True):
        assert all(np.array_equal(channel, expected) for channel in image.pixels)


def test_images_are_decoded_side_by_side_in_their_order(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding goes on only while two threads are at it; and no further than a few images ahead."""
    source = find_images("images", [], str(folders), None, "train", "image", None)
    alone = list(open_images(source, "image", "label", 8, 3, False, tmp_path))
    meeting, decode, begun = threading.Barrier(2, timeout=30), datasets.Image.decode_example, []

    def decode_together(*given: Any) -> Image.Image:
        begun.append(given)
        meeting.wait()
        return decode(*given)

    monkeypatch.setattr(datasets.Image, "decode_example", decode_together)
    together = iter(open_images(source, "image", "label", 8, 3, False, tmp_path, workers=2))
    first = next(together)
    assert len(begun) < len(alone) / 2
    for image, expected in zip([first, *together], alone, strict=True):
        assert np.array_equal(image.pixels, expected.pixels)
        assert image.label == expected.label


@pytest.mark.parametrize(("mode", "suffix"), [("I", "tif"), ("F", "tif"), ("LAB", "tif")])
def test_modes_without_a_known_white_are_refused(mode: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    Image.new(mode, (8, 8)).save(tmp_path / "pictures" / "a" / f"0.{suffix}")
    source = find_images("images", [], str(tmp_path / "pictures"), None, "train", "image", None)
    with pytest.raises(
        DataError, match=rf"0.{suffix}\) of data.name: .*pillow's mode {mode}, of which no range"
    ):
        list(open_images(source, "image", "label", 8, 1, False, tmp_path))


def _links(root: Path) -> None:
    """Every folder becomes a link to one elsewhere."""
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    for folder in list(root.iterdir()):
        folder.rename(elsewhere / f"{folder.name} (2)")
        folder.symlink_to(elsewhere / f"{folder.name} (2)")


def _surplus(root: Path) -> None:
    for name in (".ipynb_checkpoints", "cat/.ipynb_checkpoints", "__MACOSX", ".cache/a"):
        (root / name).mkdir(parents=True)
        small_picture(99).save(root / name / "0-checkpoint.png")
    for name in ("cat/._0.png", "._cat", "dog/.DS_Store", ".DS_Store", "dog/thumbs.db", "notes.txt"):
        (root / name).write_bytes(b"\0\5\x16\7")
    (root / "notes").mkdir()
    (root / "notes" / "list.csv").write_text("0,cat")


@pytest.mark.parametrize("names", [["cat", "dog"], ["cat [tabby]", "dog"], ["**", "a::b", "cat?", "{x}"]])
@pytest.mark.parametrize("around", [lambda root: None, _links, _surplus])
def test_a_class_is_a_folder_whatever_its_name(names: list[str], around: Any, tmp_path: Path) -> None:
    root = tmp_path / "pictures [all]"
    number = 0
    for name in names:
        (root / name).mkdir(parents=True)
        for _ in range(9):
            small_picture(number).save(root / name / f"{number} [x].png")
            number += 1
    if around is _surplus and names != ["cat", "dog"]:
        (root / "cat").mkdir()
        (root / "dog").mkdir(exist_ok=True)
    around(root)
    data = {"source": "images", "name": str(root), "channels": 3}
    corpus = build_images(image_config(tmp_path / "cache", labels=len(names), **data))
    assert corpus.names == names
    found = {
        image.tobytes(): int(label)
        for samples in (corpus.train, corpus.validation)
        for image, label in zip(samples.images, samples.classes, strict=True)
    }
    assert found == {np.asarray(small_picture(n)).transpose(2, 0, 1).tobytes(): n // 9 for n in range(number)}
    message = rf"data.labels: 7, but .* has {len(names)} classes \(.*\); where these are the classes you mean"
    with pytest.raises(DataError, match=message):
        build_images(image_config(tmp_path / "cache", labels=7, **data))


@pytest.mark.parametrize(
    ("deeper", "told"),
    [
        ("train/cat", r"if 'train' is not a class but holds some, .* data.name: .*pictures/train"),
        ("cat/more", "lies deeper than the classes, which are the folders right below '.*pictures'"),
        ("cat/one/two", "'.*cat/one/two/0.png' lies deeper than the classes"),
    ],
)
def test_folders_of_folders_are_refused(deeper: str, told: str, tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    for folder in ("cat", "dog", deeper):
        (root / folder).mkdir(parents=True, exist_ok=True)
        small_picture(1).save(root / folder / "0.png")
    with pytest.raises(DataError, match=told):
        build_images(image_config(tmp_path, source="images", name=str(root), labels=2))


@pytest.mark.parametrize("other", [[1, 2], ["a", "b"], [{"deep": None}, {"deep": None}], [b"x" * 9, None]])
def test_other_columns_of_images_may_differ(other: list[Any], tmp_path: Path) -> None:
    for number, values in enumerate(([None, None], other)):
        pictures = [{"bytes": encoded(2 * number + n), "path": None} for n in range(2)]
        table = pyarrow.table({"other": values, "picture": pictures, "kind": [0, 1]})
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet")
    columns = (PARQUET["image_column"], PARQUET["label_column"])
    source = find_images("parquet", [f"{tmp_path}/*.parquet"], None, None, "train", columns[0], None)
    images = list(open_images(source, *columns, 8, 3, False, tmp_path / "arrow"))
    assert [image.label for image in images] == [0, 1, 0, 1]
    assert np.array_equal(images[3].pixels, np.asarray(small_picture(3)).transpose(2, 0, 1))
    assert not (tmp_path / "arrow").exists()


def test_classes_named_otherwise_in_another_file_are_refused(tmp_path: Path) -> None:
    for number, names in enumerate((["cat", "dog"], ["dog", "cat"])):
        kinds = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=names)})
        pictures = [{"bytes": encoded(n), "path": None} for n in range(2)]
        table = datasets.Dataset.from_dict({"picture": pictures, "kind": [0, 1]}, features=kinds)
        table.to_parquet(tmp_path / f"{number}.parquet")
    with pytest.raises(
        DataError, match=r"the classes of '.*1.parquet' are dog, cat, but those of .* cat, dog"
    ):
        build_images(image_config(tmp_path, files=[f"{tmp_path}/*.parquet"], labels=2, **PARQUET))


# --- mistakes ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": 12}, r"data.labels: 12, but data.source: 'digits' has 10 classes \(0, 1, .*write 10"),
        (
            {"max_documents": 3},
            r"data.validation_fraction: 1e-09 of 3 image\(s\) leaves the validation split",
        ),
    ],
)
def test_numbers_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    data: dict[str, Any] = {"source": "digits", "validation_fraction": 1e-9, **changes}
    if "labels" in changes:
        data["validation_fraction"] = 0.2
    with pytest.raises(DataError, match=message):
        build_images(image_config(tmp_path, **data))


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        (
            [0, 1, 2, 7] * 5,
            {"labels": 3},
            r"data.labels: 3, but row 3 of data.files: '.*' has the label 7; at least 8",
        ),
        (
            [0, 1, 2, -1] * 5,
            {},
            r"data.label_column: 'kind': row 3 of data.files: '.*' has the label -1; classes are",
        ),
        (
            ["a", "b"] * 9,
            {},
            r"data.label_column: 'kind': row 0 of .* has the label 'a'; classes are whole numbers",
        ),
        (
            [0, 1] * 9,
            {"label_column": "kinds"},
            r"data.label_column: 'kinds' is no column .* did you mean 'kind'",
        ),
        (
            [0, 1] * 9,
            {"image_column": "image"},
            r"data.image_column: 'image' is no column .*columns: kind, picture",
        ),
        (
            [0, 1] * 9,
            {"image_column": "kind"},
            r"data.image_column: 'kind' of data.files: '.*' holds no images: ",
        ),
    ],
)
def test_columns_that_hold_something_else(
    tmp_path: Path, labels: list[Any], changes: dict[str, Any], message: str
) -> None:
    file = parquet_of_pictures(tmp_path / "p.parquet", labels)
    with pytest.raises(DataError, match=message):
        build_images(image_config(tmp_path, files=[file], **{**PARQUET, **changes}))


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, folders: Path) -> None:
    file = parquet_of_pictures(tmp_path / "p.parquet", [0, 1] * 9, broken=4)
    message = (
        r"data.image_column: 'picture': row 4 \(4.png\) of data.files: '.*' holds no image that can be read: "
    )
    with pytest.raises(DataError, match=message):
        build_images(image_config(tmp_path, files=[file], **PARQUET))


def test_folders_without_classes_are_refused(tmp_path: Path) -> None:
    def build(name: Path) -> None:
        build_images(image_config(tmp_path / "cache", source="images", name=str(name), labels=2))

    with pytest.raises(
        DataError, match=r"data.name: '.*nowhere' is no directory; the source 'images' needs one"
    ):
        build(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"data.name: '.*empty' holds no image files"):
        build(empty)
    small_picture(0).save(empty / "loose.png")
    with pytest.raises(
        DataError, match=r"data.name: '.*loose.png' lies in no folder of '.*': the folders are"
    ):
        build(empty)


def test_no_image_at_all_is_refused(tmp_path: Path) -> None:
    file = parquet_of_pictures(tmp_path / "p.parquet", [])
    with pytest.raises(DataError, match=r"data.files: '.*': not one image"):
        build_images(image_config(tmp_path, files=[file], streaming=True, **PARQUET))


@pytest.mark.parametrize(("missing", "package"), [("PIL", "pillow"), ("sklearn", "scikit-learn")])
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, package: str
) -> None:
    load = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ImportError(name)
        return load(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        DataError,
        match=rf"data.source: 'digits' needs {package}, which is not .* pip install 'ligo_dist\[vision\]'",
    ):
        build_images(image_config(tmp_path, source="digits"))
