"""What is a secret, and that none of it is left in a text."""

from __future__ import annotations

import pytest

from ligo_dist.runtime.redaction import holds_secret, names_secret, redact, redact_values, secrets_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("to http://me:p@ss@host:5000/api failed", "to http://***@host:5000/api failed"),
        ("postgresql://me:pa/ss@db/x", "postgresql://***@db/x"),
        ("http://host/x?user=a&api_token=abc&b=c", "http://host/x?user=a&api_token=***&b=c"),
        ("sqlite:////home/me@work/m.db", "sqlite:////home/me@work/m.db"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_secrets_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_secrets_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc123")
    assert redact("Bearer abc123 refused") == "Bearer *** refused"


def test_password_is_known_as_written_and_decoded() -> None:
    assert secrets_of("postgresql://me:a%20b@db/x") == ("a%20b", "a b")
    assert secrets_of("http://host") == ()


@pytest.mark.parametrize(
    ("variable", "value", "hidden"),
    [
        ("MLFLOW_TRACKING_PASSWORD", "abc", True),  # named ones of any length
        ("HF_TOKEN", "hf_abcdef", True),
        ("HUGGING_FACE_HUB_TOKEN", "hf_abcdef", True),
        ("HUGGINGFACE_HUB_TOKEN", "hf_abcdef", True),
        ("DATABRICKS_TOKEN", "dapi12", True),
        ("AWS_SECRET_ACCESS_KEY", "wJalrX", True),
        ("SITE_CLIENT_SECRET", "s3cret", True),
        ("site_token", "abcdef", True),
        ("SITE_TOKEN", "abcde", False),  # too short to be one
        ("MLFLOW_TRACKING_USERNAME", "ada.lovelace", False),
        ("TOKENIZERS_PARALLELISM", "false!", False),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token", False),
        ("SITE_TOKEN", "", False),
    ],
)
def test_which_variables_hold_secrets(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, hidden: bool
) -> None:
    monkeypatch.setenv(variable, value)
    assert redact(f"<{value}>") == ("<***>" if hidden else f"<{value}>")
    assert holds_secret(f"a.b=<{value}>") == hidden


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("MLFLOW_TRACKING_PASSWORD", True),
        ("hf_token", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("SITE_TOKEN", True),  # whatever it holds
        ("site_client_secret", True),
        ("MLFLOW_TRACKING_USERNAME", False),
        ("TOKENIZERS_PARALLELISM", False),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", False),
        ("TOKEN", False),
    ],
)
def test_which_names_are_those_of_secrets(name: str, secret: bool) -> None:
    assert names_secret(name) == secret


def test_a_secret_that_is_part_of_another_leaves_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "abcdef")
    monkeypatch.setenv("B_TOKEN", "abcdef-and-more")
    assert redact("abcdef-and-more") == "***"


def test_nested_values_keep_their_form() -> None:
    values = {"uri": "http://me:secret@host", "list": [1, None, {"x": "http://a:b@c"}], "pair": True}
    assert redact_values(values) == {
        "uri": "http://***@host",
        "list": [1, None, {"x": "http://***@c"}],
        "pair": True,
    }


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("tracking.uri=http://me:secret@host:5000", True),
        ("tracking.uri=http://:secret@host", True),
        ("tracking.uri=postgresql://me:pa/ss@db/x", True),
        ("tracking.uri=http://host/x?api_token=abc", True),
        ("tracking.uri=http://me@host:5000", False),
        ("tracking.uri=http://host:5000", False),
        ("tracking.uri=http://host:5000/me@work", False),
        ("tracking.uri=http://host:5000?me@work", False),
        ("tracking.uri=sqlite:////home/a:b@work/m.db", False),
        ("seed=1", False),
    ],
)
def test_what_holds_a_secret(text: str, held: bool) -> None:
    assert holds_secret(text) == held
