"""Takes the pictures of MLflow's pages in docs/images/, in a headless browser.

    python docs/screenshots/take.py --store sqlite:////path/to/runs/mlflow.db --run quickstart --stage large

Those that are there show a shortened quickstart, whose depth coefficients are learned fast enough to be seen:

    ligo-dist run configs/quickstart.yaml --nproc 1 run_dir=/tmp/demo/runs/quickstart \\
        'stages[0].train.steps=120' 'stages[1].train.steps=40' 'stages[2].train.steps=30' \\
        defaults.grow.learn.depth.learning_rate=1e-2 evaluation.every_steps=10 tracking.log_every_steps=5

It needs Debian's `chromium` and this project's environment (aiohttp and pillow come with it). An MLflow server is
started on the store, and ended again. Look at the pictures before they are committed: they show what the store holds.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from browser import Tab, ask, browser, free_port, running, wait_for_answer
from PIL import Image

IMAGES = Path(__file__).parents[1] / "images"
WIDTH = 1400
"""Pixels across, of the browser's window."""
SHOWN_WIDTH = 1000
"""Pixels across, in the documents: a picture stays below 150 kB."""
SETTLE_SECONDS = 3.0
"""For what moves when a page has its text: charts that grow, images that load."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--store", default=f"sqlite:///{Path('runs/mlflow.db').absolute()}", help="MLflow's store"
    )
    parser.add_argument("--experiment", default="ligo_dist")
    parser.add_argument("--run", default="quickstart", help="name of the parent run")
    parser.add_argument("--stage", default="large", help="a stage that was learned to be grown")
    arguments = parser.parse_args()
    with mlflow_server(arguments.store) as address:
        run = StoredRun.find(address, arguments.experiment, arguments.run, arguments.stage)
        with browser() as devtools:
            asyncio.run(photograph(devtools, address, run))


@dataclass(frozen=True)
class Page:
    """One picture to take.

    Attributes:
        name: of the file.
        path: of the page, behind the server's address.
        texts: that it shows when it is complete.
        height: of the window, in pixels.
        search: what is typed into the search box of the charts.
    """

    name: str
    path: str
    texts: tuple[str, ...]
    height: int
    search: str = ""


@dataclass(frozen=True)
class StoredRun:
    """Where the server has a run: its experiment, the parent and one of its stages."""

    experiment: str
    parent: str
    stage: str

    @classmethod
    def find(cls, address: str, experiment: str, run: str, stage: str) -> StoredRun:
        """The newest run of that name."""
        api = f"{address}/api/2.0/mlflow"
        number = ask(f"{api}/experiments/get-by-name?experiment_name={experiment}")["experiment"][
            "experiment_id"
        ]
        stored = ask(f"{api}/runs/search", {"experiment_ids": [number], "max_results": 1000})["runs"]
        parents = [one["info"]["run_id"] for one in stored if one["info"]["run_name"] == run]
        children = {
            one["info"]["run_name"]: one["info"]["run_id"]
            for one in stored
            if {"key": "mlflow.parentRunId", "value": parents[0] if parents else ""} in one["data"]["tags"]
        }
        if stage not in children:
            raise SystemExit(f"experiment {experiment} of the store has no run {run} with a stage {stage}")
        return cls(number, parents[0], children[stage])

    def pages(self) -> list[Page]:
        of_stage = f"/#/experiments/{self.experiment}/runs/{self.stage}"
        return [
            Page("mlflow-runs", f"/#/experiments/{self.experiment}/runs", ("matching runs", "large"), 420),
            Page(
                "mlflow-metrics", f"{of_stage}/model-metrics", ("Auto-refresh", "train"), 1060, search="train"
            ),
            Page("mlflow-heat-map", f"{of_stage}/artifacts/pictures/depth.png", ("depth_change.png",), 1020),
        ]

    def settings(self) -> dict[str, str]:
        """What the browser remembers of its user: an open list of stages with telling columns, no assistant."""
        metrics = [f"metrics.`{name}`" for name in ("evaluate/loss", "grow/source_loss", "grow/grown_loss")]
        columns = ["params.`parameters`", "params.`shape.layers`", "params.`shape.width`", *metrics]
        table = {
            "orderByKey": "attributes.start_time",
            "orderByAsc": True,
            "selectedColumns": columns,
            "runsExpanded": {self.parent: True},
        }
        return {
            f'MLflowLocalStorage-1.1-ExperimentPage-["{self.experiment}"]-ReactComponentState': json.dumps(
                table
            ),
            "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
            "mlflow.assistant.panelOpen_v1": "false",
        }


async def photograph(devtools: str, address: str, run: StoredRun) -> None:
    """Open each page, wait until it is complete, and write its picture."""
    IMAGES.mkdir(exist_ok=True)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(devtools, max_msg_size=2**26) as connection,
    ):
        tab = Tab(connection)
        await tab.open(address)
        for key, value in run.settings().items():
            await tab.evaluate(f"localStorage.setItem({json.dumps(key)}, {json.dumps(value)})")
        for page in run.pages():
            await tab.call(
                "Emulation.setDeviceMetricsOverride",
                width=WIDTH,
                height=page.height,
                deviceScaleFactor=1,
                mobile=False,
            )
            await tab.open(address + page.path)
            await tab.wait_for(page.texts)
            await tab.evaluate(_MAKE_ROOM)
            if page.search:
                await tab.evaluate("document.querySelector('input[placeholder^=Search]').focus()")
                await tab.call("Input.insertText", text=page.search)
            await asyncio.sleep(SETTLE_SECONDS)
            shot = await tab.call("Page.captureScreenshot", format="png")
            path = IMAGES / f"{page.name}.png"
            write_small(base64.b64decode(shot["data"]), path)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


_MAKE_ROOM = """
    if (document.body.innerText.includes("Settings")) document.querySelector('[aria-label="Toggle sidebar"]').click();
    document.head.insertAdjacentHTML("beforeend", "<style>.modebar { display: none }</style>");
"""
"""The sidebar and the charts' toolbars show nothing of a run."""


def write_small(png: bytes, path: Path) -> None:
    """Write a screenshot in the size that documents show it in."""
    with Image.open(io.BytesIO(png)) as shot:
        height = round(shot.height * SHOWN_WIDTH / shot.width)
        small = shot.convert("RGB").resize((SHOWN_WIDTH, height), Image.Resampling.LANCZOS)
        small.save(path, optimize=True)


@contextlib.contextmanager
def mlflow_server(store: str) -> Iterator[str]:
    """A server on a store; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    with running([*command, "--backend-store-uri", store]):
        address = f"http://127.0.0.1:{port}"
        wait_for_answer(f"{address}/health")
        yield address


if __name__ == "__main__":
    main()
