"""Small pictures: as files, encoded, as tables; and corpora made of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from example import with_one_stage
from ligo_dist.config import Config
from ligo_dist.corpus import ImageCorpus, build_corpus


def image_config(cache_dir: Path, family: str = "vit", **data: Any) -> Config:
    defaults = {"image_size": 8, "channels": 1, "labels": 10, "validation_fraction": 0.2}
    model = {"family": family, "patch_size": 4}
    return with_one_stage(model, {"cache_dir": str(cache_dir), **defaults, **data})


def build_images(config: Config, source: Path | None = None) -> ImageCorpus:
    corpus = build_corpus(config, source, show_progress=False)
    assert isinstance(corpus, ImageCorpus)
    return corpus


def small_picture(number: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    values = np.random.default_rng(number).integers(0, 256, size=(*size[::-1], 3)).astype("uint8")
    return Image.fromarray(values)


def encoded(number: int) -> bytes:
    buffer = io.BytesIO()
    small_picture(number).save(buffer, "png")
    return buffer.getvalue()


def parquet_of_pictures(path: Path, labels: list[Any], broken: int | None = None) -> str:
    pictures = [
        {"bytes": b"no image" if number == broken else encoded(number), "path": f"{number}.png"}
        for number in range(len(labels))
    ]
    datasets.Dataset.from_dict({"picture": pictures, "kind": labels}).to_parquet(path)
    return str(path)


PARQUET = {"source": "parquet", "image_column": "picture", "label_column": "kind", "channels": 3}
