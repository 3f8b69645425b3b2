from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from ligo_dist.runtime.errors import LigoError
from ligo_dist.tracking import artifact_directory, how_to_open, locks_warning, tracking_address

RUN = Path("/data/runs/journey")


def test_database_lies_beside_the_run_by_default() -> None:
    address = tracking_address(None, RUN)
    assert address == "sqlite:////data/runs/mlflow.db"
    assert artifact_directory(address, RUN) == Path("/data/runs/mlartifacts")
    assert how_to_open(address) == "mlflow ui --backend-store-uri sqlite:////data/runs/mlflow.db"


def test_configuration_wins_over_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking_address(None, RUN) == "http://server:5000"
    assert tracking_address("https://other", RUN) == "https://other"


def test_relative_database_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    address = tracking_address("sqlite:///here/m.db?timeout=5", RUN)
    assert address == f"sqlite:///{tmp_path}/here/m.db?timeout=5"
    assert artifact_directory(address, RUN) == tmp_path / "here" / "mlartifacts"


@pytest.mark.parametrize("run", ["/data/what?/journey", "/data/a%20b/journey"])
def test_a_path_that_an_address_cannot_hold_has_no_database_beside_it(run: str) -> None:
    with pytest.raises(LigoError, match=r"^run_dir: the MLflow database would be '/data/.*/mlflow.db'"):
        tracking_address(None, Path(run))
    assert tracking_address("http://server:5000/", Path(run)) == "http://server:5000/"


def test_every_other_path_is_the_file_that_is_opened(tmp_path: Path) -> None:
    from sqlalchemy.engine import make_url

    for name in ("a b", "exp #3", "100%", "50% off", "ä&ö;=+", "it's", "a@b:c"):
        assert make_url(tracking_address(None, tmp_path / name / "run")).database == str(
            tmp_path / name / "mlflow.db"
        )


@pytest.mark.parametrize(
    ("address", "directory"),
    [("http://server", None), ("databricks", None), ("postgresql://db/x", Path("/data/runs/mlartifacts"))],
)
def test_server_decides_where_artifacts_go(address: str, directory: Path | None) -> None:
    assert tracking_address(address, RUN) == address
    assert artifact_directory(address, RUN) == directory


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "htp://me:secret@server",
            r"tracking\.uri: 'htp://\*\*\*@server' has the unknown scheme 'htp'; did you mean 'http'",
        ),
        ("ftp7z://server", "has the unknown scheme 'ftp7z'; use sqlite:////data/runs/mlflow.db or"),
        (
            "mlruns",
            "'mlruns' is a directory, which MLflow no longer writes to; use sqlite:////data/runs/mlflow.db",
        ),
        ("file:///x/mlruns", "is a directory"),
        ("http://", r"names no host; write http://HOST:PORT"),
        ("http://[::1", r"names no host"),
        ("http://server:50000000", r"names no host"),
        ("http://server:port", r"names no host"),
        ("http://my server:5000", r"names no host"),
        (
            "http://server:5000/#/experiments/1",
            r"'http://server:5000/#/experiments/1' is a page that a server shows; its own address is http://server:5000$",
        ),
        ("https://server/mlflow/#/models", r"its own address is https://server/mlflow$"),
        ("https://server/?o=12#mlflow", r"its own address is https://server$"),
        ("http://me:secret@server/#/", r"'http://\*\*\*@server/#/' is a page"),
        ("sqlite:////data/what?/m.db", r"'sqlite:////data/what\?/m.db' would not be that file"),
        ("sqlite:////data/100%25/m.db", r"would not be that file"),
        ("sqlite:///m?.db", r"would not be that file"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_address_that_can_be_no_store(uri: str, message: str) -> None:
    with pytest.raises(LigoError, match=message):
        tracking_address(uri, RUN)


def test_environment_is_named_as_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    with pytest.raises(LigoError, match=r"^MLFLOW_TRACKING_URI: 'mlruns'"):
        tracking_address(None, RUN)


def test_password_is_not_shown_in_a_command() -> None:
    assert how_to_open("postgresql://me:secret@db/x") == "postgresql://***@db/x"
    assert how_to_open("http://me:secret@server:5000") == "http://***@server:5000"


def test_place_that_the_address_is_from_is_named() -> None:
    with pytest.raises(LigoError, match=r"^--uri: 'mlruns'"):
        tracking_address("mlruns", RUN, "--uri")


@pytest.mark.parametrize(
    ("mounts", "uri", "kind"),
    [
        ({"/": "ext4", "/data": "nfs4"}, None, "nfs4"),
        ({"/": "lustre"}, None, "lustre"),
        ({"/": "ext4", "/data": "fuse.sshfs"}, "sqlite:////data/m.db?timeout=5", "fuse.sshfs"),
        ({"/": "nfs", "/data": "xfs"}, None, None),
        ({"/": "ext4", "/data/run": "nfs"}, None, None),  # the file lies beside the run
        ({"/": "nfs"}, "http://server:5000", None),
        ({}, None, None),
    ],
)
def test_a_database_on_a_network_file_system_is_told(
    monkeypatch: pytest.MonkeyPatch, mounts: dict[str, str], uri: str | None, kind: str | None
) -> None:
    found = [SimpleNamespace(mountpoint=place, fstype=fstype) for place, fstype in mounts.items()]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: found)
    message = locks_warning(tracking_address(uri, RUN))
    assert (message is None) == (kind is None)
    assert kind is None or f"network file system ({kind})" in str(message)
