"""Images from anywhere, as samples of one size, kept in the cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import AutoImageProcessor

from ligo_dist.corpus import ImageCorpus, is_validation
from ligo_dist.corpus import image_corpus as module
from ligo_dist.runtime.errors import DataError
from pictures import PARQUET, build_images, image_config, parquet_of_pictures, small_picture


def test_the_digits(tmp_path: Path) -> None:
    corpus = build_images(image_config(tmp_path, source="digits", random_shift=1))
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
    again = build_images(image_config(tmp_path, source="digits", random_flip=True))
    assert again.fingerprint == corpus.fingerprint, "what is random is not in the cache"
    assert (again.train.flip, again.validation.flip) == (True, False)
    assert build_images(image_config(tmp_path, "deit", source="digits")).train.tokens_per_sample == 6


def test_images_that_were_prepared_stand_on_their_own(tmp_path: Path, folders: Path) -> None:
    moved = shutil.copytree(folders, tmp_path / "pictures")
    config = image_config(tmp_path / "cache", source="images", name=str(moved), labels=2, channels=3)
    before = build_images(config)
    for file in moved.rglob("*.png"):
        file.touch()
    touched = build_images(config)
    assert (touched.directory != before.directory, touched.fingerprint) == (True, before.fingerprint)
    shutil.rmtree(moved)
    after = build_images(config)
    assert (after.directory, after.fingerprint) == (touched.directory, before.fingerprint)
    assert "(prepared before: data.name: '" in after.description
    with pytest.raises(DataError, match="is no directory"):
        build_images(
            image_config(tmp_path / "elsewhere", source="images", name=str(moved), labels=2, channels=3)
        )


def test_images_are_resized_and_converted(tmp_path: Path, folders: Path) -> None:
    corpus = build_images(image_config(tmp_path, source="images", name=str(folders), labels=2, channels=3))
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
    grey = build_images(image_config(tmp_path, source="images", name=str(folders), labels=2, channels=1))
    assert grey.train.images.shape[1:] == (1, 8, 8)
    streamed = build_images(
        image_config(tmp_path / "s", source="images", name=str(folders), labels=2, channels=3, streaming=True)
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
    config = image_config(tmp_path, source="images", name=str(folders), labels=2, channels=3)
    plain = build_images(config)
    said = source and {"id2label": {str(number): name for number, name in enumerate(source)}}
    (tmp_path / "config.json").write_text(json.dumps(said or {}))
    # A source's keys are filled into the configuration before it comes here.
    keys = {"id2label": dict(enumerate(given))} if given else said or {}
    corpus = build_images(
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
    corpus = build_images(
        image_config(tmp_path, source="images", name=str(folders), labels=2, channels=3), tmp_path
    )
    assert (corpus.train.mean, corpus.train.standard_deviation) == ([mean] * 3, [deviation] * 3)


def test_the_first_images_are_of_all_classes(tmp_path: Path, folders: Path) -> None:
    data = {"source": "images", "name": str(folders), "labels": 2, "channels": 3, "max_documents": 12}
    corpus = build_images(image_config(tmp_path, **data))
    classes = [*corpus.train.classes, *corpus.validation.classes]
    assert sorted(classes) == [0] * 6 + [1] * 6


def test_images_from_parquet(tmp_path: Path) -> None:
    file = parquet_of_pictures(tmp_path / "p.parquet", [number % 3 for number in range(30)])
    corpus = build_images(image_config(tmp_path, files=[file], labels=3, max_documents=20, **PARQUET))
    assert len(corpus.train) + len(corpus.validation) == 20
    pictures = {
        np.asarray(small_picture(number)).transpose(2, 0, 1).tobytes(): number % 3 for number in range(20)
    }
    for image, label in zip(corpus.train.images, corpus.train.classes, strict=True):
        assert pictures[image.tobytes()] == label
    assert (corpus.names, corpus.library_keys()) == (None, {})


def test_images_from_a_saved_data_set(tmp_path: Path, folders: Path) -> None:
    datasets.load_dataset("imagefolder", data_dir=str(folders), split="train").save_to_disk(
        tmp_path / "saved"
    )
    hub = build_images(
        image_config(tmp_path, source="hub", name=str(tmp_path / "saved"), labels=2, channels=3)
    )
    folder = build_images(image_config(tmp_path, source="images", name=str(folders), labels=2, channels=3))
    assert hub.names == folder.names

    def pictures(corpus: ImageCorpus) -> list[bytes]:
        return sorted(image.tobytes() for image in corpus.train.images)

    assert pictures(hub) == pictures(folder)


def test_the_processor_makes_what_the_model_was_trained_on(tmp_path: Path, folders: Path) -> None:
    for channels in (1, 3):
        config = image_config(tmp_path, source="images", name=str(folders), labels=2, channels=channels)
        corpus = build_images(config)
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
        build_images(image_config(tmp_path, source="digits"), tmp_path)
    assert "preprocessor_config.json has" not in caplog.text
    file.write_text(json.dumps({"do_center_crop": True, "resample": 3, "do_resize": True}))
    build_images(image_config(tmp_path, source="digits"), tmp_path)
    assert "has resample: 3, do_center_crop: true; here images are resized whole" in caplog.text


def test_the_sources_processor_says_how_to_normalise(tmp_path: Path) -> None:
    config = image_config(tmp_path, source="digits")
    said = {"image_mean": [0.25], "image_std": [0.125]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    corpus = build_images(config, tmp_path)
    assert (corpus.train.mean, corpus.validation.standard_deviation) == ([0.25], [0.125])
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3}))
    assert build_images(config, tmp_path).train.mean == [0.5], "of three channels, where there is one"


def test_images_are_read_once_and_anew_where_they_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = build_images(image_config(tmp_path, source="digits"))
    path = corpus.directory / "train.images.bin"
    sound = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(module, "open_images", lambda *arguments: pytest.fail("read again"))
        build_images(image_config(tmp_path, source="digits"))
    for changed, what in ((sound[:-1], "another size"), (bytes(1) + sound[1:-1] + b"\7", "another checksum")):
        path.write_bytes(changed)
        build_images(image_config(tmp_path, source="digits"))
        assert path.read_bytes() == sound
        assert what in caplog.text
    (corpus.directory / "index.json").write_text('{"fingerprint": "another"}')
    build_images(image_config(tmp_path, source="digits"))
    assert "index.json belongs to another corpus" in caplog.text
