"""Settings: one definition, refused in plain words, and never a key in sight."""

import os
import re
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from beexformer import cli
from beexformer.app.settings import FOREIGN, PREFIX, RETIRED, Settings, cpus, sentences


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def serve(monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    """The exit code of `beexformer serve` with these flags."""
    monkeypatch.setattr(sys, "argv", ["beexformer", "serve", *flags])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described_and_is_a_flag(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Settings.model_fields[name].description
    assert serve(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert f"--{name.replace('_', '-')}" in shown
    assert f"{PREFIX}{name.upper()}" in "".join(shown.split())


def test_settings_come_from_the_environment_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEE_CHECKPOINTS", "one,/two/three")
    monkeypatch.setenv("BEE_PORT", "9")
    monkeypatch.setenv("BEE_DEFAULT_MODEL", "")  # as compose passes what isn't set
    settings = Settings()
    assert settings.checkpoints == (Path("one"), Path("/two/three"))
    assert settings.port == 9
    assert settings.default_model is None
    with pytest.raises(ValidationError):
        settings.port = 10  # type: ignore[misc]


@pytest.mark.parametrize("name", ["BEE_PROT", "bee_prot"])
def test_a_misspelt_variable_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "8000")
    with pytest.raises(ValidationError, match=f"{name} is no setting; did you mean BEE_PORT?"):
        Settings()


def test_variables_of_others_under_the_prefix_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FOREIGN:
        monkeypatch.setenv(name, "/data")
    assert Settings().port == 8000


def test_bad_values_are_a_sentence_each_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BEE_PORT", "eighty")
    monkeypatch.setenv("BEE_API_KEYS", "hush")
    assert serve(monkeypatch, "--max-wait-ms", "-1", "--log-level", "info") == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["BEE_PORT", "BEE_MAX_WAIT_MS", "BEE_API_KEYS"]
    assert "Traceback" not in err
    assert "hush" not in out + err


def test_an_unknown_flag_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(monkeypatch, "--prot", "1") == 2
    assert "--prot" in capsys.readouterr().err


def test_keys_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEE_API_KEYS", "hush-hush-1,hush-hush-2")
    settings = Settings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["hush-hush-1", "hush-hush-2"]
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings.model_dump())


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(api_keys=("", "long enough"))
    assert sentences(refused.value) == ["BEE_API_KEYS: each key needs at least 8 characters, all of them ASCII"]


@pytest.mark.parametrize("name", RETIRED)
def test_a_setting_that_went_is_refused_with_what_replaces_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve(monkeypatch, f"--{name.removeprefix(PREFIX).lower().replace('_', '-')}", "1") == 2
    assert "is no setting any more; " in capsys.readouterr().err
    monkeypatch.setenv(name, "1")
    with pytest.raises(ValidationError, match=f"{name} is no setting any more; "):
        Settings()
    for replacement in re.findall(r"BEE_\w+", RETIRED[name]):
        assert replacement.removeprefix(PREFIX).lower() in Settings.model_fields


CPUS = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "usable"), [("max 100000", CPUS), ("50000 100000", 1), ("100000000 100000", CPUS), ("", CPUS)]
)
def test_a_containers_limit_counts(limit: str, usable: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr("beexformer.app.settings.CPU_LIMIT", tmp_path / "cpu.max")
    assert cpus() == usable


def test_settings_that_contradict_one_another_are_refused() -> None:
    with pytest.raises(ValidationError, match="BEE_API_KEYS names none; set both"):
        Settings(quota_per_minute=60)
    with pytest.raises(ValidationError, match="BEE_BROWNOUT_WAIT_MS is 500 and must lie below BEE_MAX_WAIT_MS, 500"):
        Settings(brownout_wait_ms=500)
