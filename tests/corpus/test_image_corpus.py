"""Images from anywhere, as samples of one size, kept in the cache."""

from __future__ import annotations

import builtins
import io
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import AutoImageProcessor

from ligo_dist.config import Config, config_from
from ligo_dist.corpus import ImageCorpus, build_corpus, find_images, is_validation, open_images
from ligo_dist.corpus import image_corpus as module
from ligo_dist.runtime.errors import DataError


def _config(cache_dir: Path, family: str = "vit", **data: Any) -> Config:
    defaults = {"image_size": 8, "channels": 1, "labels": 10, "validation_fraction": 0.2}
    stage = {
        "name": "small",
        "size": {"layers": 1, "width": 16, "heads": 2},
        "train": {"steps": 1, "batch_size": 1, "micro_batch_size": 1},
    }
    return config_from(
        {
            "run_dir": "runs/x",
            "seed": 5,
            "model": {"family": family, "patch_size": 4},
            "stages": [stage],
            "data": {"cache_dir": str(cache_dir), **defaults, **data},
        }
    )


def _build(config: Config, source: Path | None = None) -> ImageCorpus:
    corpus = build_corpus(config, source, show_progress=False)
    assert isinstance(corpus, ImageCorpus)
    return corpus


def _picture(number: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    values = np.random.default_rng(number).integers(0, 256, size=(*size[::-1], 3)).astype("uint8")
    return Image.fromarray(values)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures in a folder for each of two classes, of several sizes and formats."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(40):
        folder = root / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        picture = _picture(number, [(8, 8), (13, 20)][number % 3 == 0])
        picture.save(folder / f"{number}.{('png', 'bmp')[number % 5 == 0]}")
    (root / "cat" / "notes.txt").write_text("not a picture")
    return root


def _encoded(number: int) -> bytes:
    buffer = io.BytesIO()
    _picture(number).save(buffer, "png")
    return buffer.getvalue()


def _parquet(path: Path, labels: list[Any], broken: int | None = None) -> str:
    pictures = [
        {"bytes": b"no image" if number == broken else _encoded(number), "path": f"{number}.png"}
        for number in range(len(labels))
    ]
    datasets.Dataset.from_dict({"picture": pictures, "kind": labels}).to_parquet(path)
    return str(path)


PARQUET = {"source": "parquet", "image_column": "picture", "label_column": "kind", "channels": 3}


def test_the_digits(tmp_path: Path) -> None:
    corpus = _build(_config(tmp_path, source="digits", random_shift=1))
    images, labels = load_digits(return_X_y=True)
    expected = {
        (tuple(np.rint(image * 255 / 16).astype("uint8").tolist()), int(label))
        for image, label in zip(images, labels, strict=True)
    }
    seen = set()
    for samples, side in ((corpus.train, False), (corpus.validation, True)):
        for image, label in zip(samples.images, samples.classes, strict=True):
            assert image.shape == (1, 8, 8)
            assert is_validation(image.tobytes(), 0.2) is side
            seen.add((tuple(image.ravel().tolist()), int(label)))
    assert seen == expected
    assert len(corpus.train) + len(corpus.validation) == 1797
    assert corpus.train.tokens_per_sample == 5, "four patches and the class token"
    assert (corpus.train.seed, corpus.train.shift, corpus.validation.shift) == (5, 1, 0)
    assert (corpus.vocab_size, corpus.tokenizer) == (0, None)
    assert corpus.names == [str(digit) for digit in range(10)]
    assert corpus.library_keys()["label2id"]["7"] == 7
    assert corpus.description.startswith(f"{len(corpus.train):,} images of 8 x 8 x 1 to train on, ")
    again = _build(_config(tmp_path, source="digits", random_flip=True))
    assert again.fingerprint == corpus.fingerprint, "what is random is not in the cache"
    assert (again.train.flip, again.validation.flip) == (True, False)
    assert _build(_config(tmp_path, "deit", source="digits")).train.tokens_per_sample == 6


def test_images_that_were_prepared_stand_on_their_own(tmp_path: Path, folders: Path) -> None:
    moved = shutil.copytree(folders, tmp_path / "pictures")
    config = _config(tmp_path / "cache", source="images", name=str(moved), labels=2, channels=3)
    before = _build(config)
    for file in moved.rglob("*.png"):
        file.touch()
    touched = _build(config)
    assert (touched.directory != before.directory, touched.fingerprint) == (True, before.fingerprint)
    shutil.rmtree(moved)
    after = _build(config)
    assert (after.directory, after.fingerprint) == (touched.directory, before.fingerprint)
    assert "(prepared before: data.name: '" in after.description
    with pytest.raises(DataError, match="is no directory"):
        _build(_config(tmp_path / "elsewhere", source="images", name=str(moved), labels=2, channels=3))


def test_images_are_resized_and_converted(tmp_path: Path, folders: Path) -> None:
    corpus = _build(_config(tmp_path, source="images", name=str(folders), labels=2, channels=3))
    assert corpus.names == ["cat", "dog"]
    assert len(corpus.train) + len(corpus.validation) == 40
    files = [path for path in folders.rglob("*") if path.suffix in (".png", ".bmp")]
    expected = {}
    for path in files:
        pixels = np.asarray(Image.open(path).resize((8, 8), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        expected[pixels.tobytes()] = ("cat", "dog").index(path.parent.name)
    found = {
        image.tobytes(): int(label)
        for samples in (corpus.train, corpus.validation)
        for image, label in zip(samples.images, samples.classes, strict=True)
    }
    assert found == expected
    grey = _build(_config(tmp_path, source="images", name=str(folders), labels=2, channels=1))
    assert grey.train.images.shape[1:] == (1, 8, 8)
    streamed = _build(
        _config(tmp_path / "s", source="images", name=str(folders), labels=2, channels=3, streaming=True)
    )
    assert streamed.fingerprint == corpus.fingerprint
    assert np.array_equal(streamed.train.images, corpus.train.images)


@pytest.mark.parametrize(
    ("source", "given", "expected"),
    [
        (["dog", "cat"], None, {"cat": 1, "dog": 0}),
        (["cat", "dog"], None, {"cat": 0, "dog": 1}),
        (["LABEL_0", "LABEL_1"], None, {"cat": 0, "dog": 1}),
        (["dog", "bird"], None, {"cat": 0, "dog": 1}),
        (["dog", "dog"], None, {"cat": 0, "dog": 1}),
        (None, ["dog", "cat"], {"cat": 1, "dog": 0}),
        (["dog", "cat"], ["cat", "dog"], {"cat": 0, "dog": 1}),
        (["dog", "cat"], ["Katze", "Hund"], {"Katze": 0, "Hund": 1}),
    ],
)
def test_classes_have_the_numbers_that_the_model_gives_their_names(
    tmp_path: Path,
    folders: Path,
    caplog: pytest.LogCaptureFixture,
    source: list[str] | None,
    given: list[str] | None,
    expected: dict[str, int],
) -> None:
    config = _config(tmp_path, source="images", name=str(folders), labels=2, channels=3)
    plain = _build(config)
    said = source and {"id2label": {str(number): name for number, name in enumerate(source)}}
    (tmp_path / "config.json").write_text(json.dumps(said or {}))
    # A source's keys are filled into the configuration before it comes here.
    keys = {"id2label": dict(enumerate(given))} if given else said or {}
    corpus = _build(
        config.model_copy(update={"model": config.model.model_copy(update={"huggingface": keys})}), tmp_path
    )
    assert corpus.exported_keys()["label2id"] == expected
    numbers = list(expected.values()) if given == ["Katze", "Hund"] else [expected["cat"], expected["dog"]]
    assert corpus.train.classes.tolist() == [numbers[label] for label in plain.train.classes]
    assert ("its classifier learns the latter" in caplog.text) is (
        source in (["dog", "bird"], ["dog", "dog"])
    )


@pytest.mark.parametrize(
    ("said", "mean", "deviation"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False}, 0.0, 1.0),
        ({"image_mean": [0.25] * 3, "image_std": [0.2] * 3, "do_normalize": True}, 0.25, 0.2),
        ({"do_normalize": True}, 0.5, 0.5),
        # What is 1 here is 255 to the source, or 2.
        ({"do_rescale": False, "do_normalize": False}, 0.0, 1 / 255),
        ({"image_mean": [1.0] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 127.5}, 0.5, 0.25),
    ],
)
def test_a_source_that_normalises_otherwise(
    tmp_path: Path, folders: Path, said: dict[str, Any], mean: float, deviation: float
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    corpus = _build(_config(tmp_path, source="images", name=str(folders), labels=2, channels=3), tmp_path)
    assert (corpus.train.mean, corpus.train.standard_deviation) == ([mean] * 3, [deviation] * 3)


def test_the_first_images_are_of_all_classes(tmp_path: Path, folders: Path) -> None:
    data = {"source": "images", "name": str(folders), "labels": 2, "channels": 3, "max_documents": 12}
    corpus = _build(_config(tmp_path, **data))
    classes = [*corpus.train.classes, *corpus.validation.classes]
    assert sorted(classes) == [0] * 6 + [1] * 6


def test_images_from_parquet(tmp_path: Path) -> None:
    file = _parquet(tmp_path / "p.parquet", [number % 3 for number in range(30)])
    corpus = _build(_config(tmp_path, files=[file], labels=3, max_documents=20, **PARQUET))
    assert len(corpus.train) + len(corpus.validation) == 20
    pictures = {np.asarray(_picture(number)).transpose(2, 0, 1).tobytes(): number % 3 for number in range(20)}
    for image, label in zip(corpus.train.images, corpus.train.classes, strict=True):
        assert pictures[image.tobytes()] == label
    assert (corpus.names, corpus.library_keys()) == (None, {})


def test_images_from_a_saved_data_set(tmp_path: Path, folders: Path) -> None:
    datasets.load_dataset("imagefolder", data_dir=str(folders), split="train").save_to_disk(
        tmp_path / "saved"
    )
    hub = _build(_config(tmp_path, source="hub", name=str(tmp_path / "saved"), labels=2, channels=3))
    folder = _build(_config(tmp_path, source="images", name=str(folders), labels=2, channels=3))
    assert hub.names == folder.names

    def pictures(corpus: ImageCorpus) -> list[bytes]:
        return sorted(image.tobytes() for image in corpus.train.images)

    assert pictures(hub) == pictures(folder)


def test_the_processor_makes_what_the_model_was_trained_on(tmp_path: Path, folders: Path) -> None:
    for channels in (1, 3):
        config = _config(tmp_path, source="images", name=str(folders), labels=2, channels=channels)
        corpus = _build(config)
        (tmp_path / str(channels)).mkdir()
        corpus.write_processor(tmp_path / str(channels))
        processor = AutoImageProcessor.from_pretrained(tmp_path / str(channels))
        mode = {1: "L", 3: "RGB"}[channels]
        known = {image.tobytes(): number for number, image in enumerate(corpus.train.images)}
        compared = 0
        for path in sorted(folders.rglob("*.png")):
            picture = Image.open(path).convert(mode)
            pixels = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR)).reshape(8, 8, channels)
            number = known.get(pixels.transpose(2, 0, 1).tobytes())
            if number is None:
                continue
            expected = corpus.train.finish(corpus.train.read([number], [0]))["pixel_values"]
            torch.testing.assert_close(
                processor(picture, return_tensors="pt")["pixel_values"], expected, atol=1e-5, rtol=0
            )
            compared += 1
        assert compared > 10


def test_what_of_the_sources_processor_is_not_followed_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "preprocessor_config.json"
    for said in (
        {"do_resize": True, "resample": 2, "size": {"height": 384, "width": 384}},
        {"image_mean": [0.5]},
    ):
        file.write_text(json.dumps(said))
        _build(_config(tmp_path, source="digits"), tmp_path)
    assert "preprocessor_config.json has" not in caplog.text
    file.write_text(json.dumps({"do_center_crop": True, "resample": 3, "do_resize": True}))
    _build(_config(tmp_path, source="digits"), tmp_path)
    assert "has resample: 3, do_center_crop: true; here images are resized whole" in caplog.text


def test_the_sources_processor_says_how_to_normalise(tmp_path: Path) -> None:
    config = _config(tmp_path, source="digits")
    said = {"image_mean": [0.25], "image_std": [0.125]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    corpus = _build(config, tmp_path)
    assert (corpus.train.mean, corpus.validation.standard_deviation) == ([0.25], [0.125])
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3}))
    assert _build(config, tmp_path).train.mean == [0.5], "of three channels, where there is one"


def test_images_are_read_once_and_anew_where_they_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = _build(_config(tmp_path, source="digits"))
    path = corpus.directory / "train.images.bin"
    sound = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(module, "open_images", lambda *arguments: pytest.fail("read again"))
        _build(_config(tmp_path, source="digits"))
    for changed, what in ((sound[:-1], "another size"), (bytes(1) + sound[1:-1] + b"\7", "another checksum")):
        path.write_bytes(changed)
        _build(_config(tmp_path, source="digits"))
        assert path.read_bytes() == sound
        assert what in caplog.text
    (corpus.directory / "index.json").write_text('{"fingerprint": "another"}')
    _build(_config(tmp_path, source="digits"))
    assert "index.json belongs to another corpus" in caplog.text


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
        _picture(99).save(root / name / "0-checkpoint.png")
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
            _picture(number).save(root / name / f"{number} [x].png")
            number += 1
    if around is _surplus and names != ["cat", "dog"]:
        (root / "cat").mkdir()
        (root / "dog").mkdir(exist_ok=True)
    around(root)
    data = {"source": "images", "name": str(root), "channels": 3}
    corpus = _build(_config(tmp_path / "cache", labels=len(names), **data))
    assert corpus.names == names
    found = {
        image.tobytes(): int(label)
        for samples in (corpus.train, corpus.validation)
        for image, label in zip(samples.images, samples.classes, strict=True)
    }
    assert found == {np.asarray(_picture(n)).transpose(2, 0, 1).tobytes(): n // 9 for n in range(number)}
    message = rf"data.labels: 7, but .* has {len(names)} classes \(.*\); where these are the classes you mean"
    with pytest.raises(DataError, match=message):
        _build(_config(tmp_path / "cache", labels=7, **data))


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
        _picture(1).save(root / folder / "0.png")
    with pytest.raises(DataError, match=told):
        _build(_config(tmp_path, source="images", name=str(root), labels=2))


@pytest.mark.parametrize("other", [[1, 2], ["a", "b"], [{"deep": None}, {"deep": None}], [b"x" * 9, None]])
def test_other_columns_of_images_may_differ(other: list[Any], tmp_path: Path) -> None:
    for number, values in enumerate(([None, None], other)):
        pictures = [{"bytes": _encoded(2 * number + n), "path": None} for n in range(2)]
        table = pyarrow.table({"other": values, "picture": pictures, "kind": [0, 1]})
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet")
    columns = (PARQUET["image_column"], PARQUET["label_column"])
    source = find_images("parquet", [f"{tmp_path}/*.parquet"], None, None, "train", columns[0], None)
    images = list(open_images(source, *columns, 8, 3, False, tmp_path / "arrow"))
    assert [image.label for image in images] == [0, 1, 0, 1]
    assert np.array_equal(images[3].pixels, np.asarray(_picture(3)).transpose(2, 0, 1))
    assert not (tmp_path / "arrow").exists()


def test_classes_named_otherwise_in_another_file_are_refused(tmp_path: Path) -> None:
    for number, names in enumerate((["cat", "dog"], ["dog", "cat"])):
        kinds = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=names)})
        pictures = [{"bytes": _encoded(n), "path": None} for n in range(2)]
        table = datasets.Dataset.from_dict({"picture": pictures, "kind": [0, 1]}, features=kinds)
        table.to_parquet(tmp_path / f"{number}.parquet")
    with pytest.raises(
        DataError, match=r"the classes of '.*1.parquet' are dog, cat, but those of .* cat, dog"
    ):
        _build(_config(tmp_path, files=[f"{tmp_path}/*.parquet"], labels=2, **PARQUET))


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
        _build(_config(tmp_path, **data))


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
    file = _parquet(tmp_path / "p.parquet", labels)
    with pytest.raises(DataError, match=message):
        _build(_config(tmp_path, files=[file], **{**PARQUET, **changes}))


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, folders: Path) -> None:
    file = _parquet(tmp_path / "p.parquet", [0, 1] * 9, broken=4)
    message = (
        r"data.image_column: 'picture': row 4 \(4.png\) of data.files: '.*' holds no image that can be read: "
    )
    with pytest.raises(DataError, match=message):
        _build(_config(tmp_path, files=[file], **PARQUET))


def test_folders_without_classes_are_refused(tmp_path: Path) -> None:
    def build(name: Path) -> None:
        _build(_config(tmp_path / "cache", source="images", name=str(name), labels=2))

    with pytest.raises(
        DataError, match=r"data.name: '.*nowhere' is no directory; the source 'images' needs one"
    ):
        build(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"data.name: '.*empty' holds no image files"):
        build(empty)
    _picture(0).save(empty / "loose.png")
    with pytest.raises(
        DataError, match=r"data.name: '.*loose.png' lies in no folder of '.*': the folders are"
    ):
        build(empty)


def test_no_image_at_all_is_refused(tmp_path: Path) -> None:
    file = _parquet(tmp_path / "p.parquet", [])
    with pytest.raises(DataError, match=r"data.files: '.*': not one image"):
        _build(_config(tmp_path, files=[file], streaming=True, **PARQUET))


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
        _build(_config(tmp_path, source="digits"))
