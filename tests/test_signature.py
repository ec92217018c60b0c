"""Signatures by the real minisign are accepted; whatever else lies there is refused with one sentence."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from beexformer.model import signature
from beexformer.model.checkpoint import Checkpoint, read, save
from beexformer.model.errors import CheckpointError

pytest.importorskip("cryptography", reason="the extra [sign] is not installed")
pytestmark = pytest.mark.skipif(not shutil.which("minisign"), reason="minisign is not installed")


def keys(folder: Path) -> tuple[str, Path]:
    """A public key, and the file of its secret one."""
    folder.mkdir()
    command = ["minisign", "-G", "-W", "-p", folder / "key.pub", "-s", folder / "key"]
    subprocess.run(command, check=True, capture_output=True)
    return (folder / "key.pub").read_text(), folder / "key"


def sign(checkpoint: Path, secret: Path, *options: str) -> None:
    command = ["minisign", "-S", *options, "-s", secret, "-m", checkpoint / "config.json"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("kind", ["-H", "-l"], ids=["of the digest", "of the file"])
def test_a_signed_folder_is_read_by_who_trusts_the_key(folder: Path, tmp_path: Path, kind: str) -> None:
    public, secret = keys(tmp_path / "keys")
    sign(folder, secret, kind)
    assert read(folder, public).name == "tiny"
    assert read(folder, public.splitlines()[1]).name == "tiny"
    assert read(folder).name == "tiny", "who asks for no signature minds none"


def damaged(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"positive"', '"negatiwe"'))


def other_comment(folder: Path) -> None:
    path = folder / "config.json.minisig"
    path.write_text(path.read_text().replace("trusted comment: timestamp", "trusted comment: timestomp"))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "unsigned": (lambda folder: (folder / "config.json.minisig").unlink(), "has no signature config.json.minisig"),
    "changed": (damaged, "is not what was signed in config.json.minisig"),
    "another comment": (other_comment, "is not what was signed"),
    "empty": (lambda folder: (folder / "config.json.minisig").write_text(""), "is no signature of minisign"),
    "no base64": (lambda folder: (folder / "config.json.minisig").write_text("a\nb\nc\nd\n"), "is no signature"),
    "bytes": (lambda folder: (folder / "config.json.minisig").write_bytes(b"\xff\n" * 4), "is no signature"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_not_signed_is_refused(folder: Path, tmp_path: Path, how: str) -> None:
    public, secret = keys(tmp_path / "keys")
    sign(folder, secret)
    spoil, words = REFUSED[how]
    spoil(folder)
    with pytest.raises(CheckpointError, match=words) as caught:
        read(folder, public)
    assert "\n" not in str(caught.value)


def test_a_signature_of_another_key_is_refused(folder: Path, tmp_path: Path) -> None:
    _, secret = keys(tmp_path / "theirs")
    public, _ = keys(tmp_path / "ours")
    sign(folder, secret)
    with pytest.raises(CheckpointError, match=r"is signed with key [0-9A-F]{16}; the trusted one is [0-9A-F]{16}"):
        read(folder, public)


def test_what_is_no_key_is_said_so() -> None:
    for text in ("", "RWQ", "hello world", "untrusted comment: x\n"):
        with pytest.raises(ValueError, match="no public key of minisign"):
            signature.public_key(text)


def test_a_signed_folder_can_be_written_anew_and_loses_its_signature(
    checkpoint: Checkpoint, folder: Path, tmp_path: Path
) -> None:
    sign(folder, keys(tmp_path / "keys")[1])
    save(checkpoint, folder)
    assert not (folder / "config.json.minisig").exists()


def test_a_service_that_trusts_a_key_loads_what_it_has_signed_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    main, settings = pytest.importorskip("beexformer.app.main"), pytest.importorskip("beexformer.app.settings")
    public, secret = keys(tmp_path / "keys")
    trusting = settings.Settings(checkpoints=(folder,), trusted_key=public.splitlines()[1])
    with pytest.raises(CheckpointError, match="only signed checkpoints are trusted here"):
        main.load_registry(trusting)
    sign(folder, secret)
    assert [engine.name for engine in main.load_registry(trusting)] == ["tiny"]
    with pytest.raises(ValueError, match="no public key of minisign"):
        settings.Settings(trusted_key="RWQ")
