"""Images from anywhere, as samples of one size, kept in the cache."""

from __future__ import annotations

import builtins
import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import AutoImageProcessor

from ligo_dist.config import Config, config_from
from ligo_dist.corpus import build_corpus
from ligo_dist.corpus import image_corpus as module
from ligo_dist.corpus.image_corpus import ImageCorpus
from ligo_dist.corpus.order import is_validation
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


def _parquet(path: Path, labels: list[Any], broken: int | None = None) -> str:
    def encoded(number: int) -> bytes:
        if number == broken:
            return b"no image"
        buffer = io.BytesIO()
        _picture(number).save(buffer, "png")
        return buffer.getvalue()

    pictures = [{"bytes": encoded(number), "path": f"{number}.png"} for number in range(len(labels))]
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
    ],
)
def test_a_source_that_does_not_normalise(
    tmp_path: Path, folders: Path, said: dict[str, Any], mean: float, deviation: float
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    corpus = _build(_config(tmp_path, source="images", name=str(folders), labels=2, channels=3), tmp_path)
    assert (corpus.train.mean, corpus.train.standard_deviation) == ([mean] * 3, [deviation] * 3)


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
            expected = corpus.train.read([number], [0])["pixel_values"]
            torch.testing.assert_close(
                processor(picture, return_tensors="pt")["pixel_values"], expected, atol=1e-5, rtol=0
            )
            compared += 1
        assert compared > 10


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
    assert "index.json belongs to other images" in caplog.text


# --- mistakes ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": 12}, r"data.labels: 12, but data.source: 'digits' has 10 classes; write 10"),
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
