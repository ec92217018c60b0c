"""
Checkpoints from an object store: a URL to a folder here, verified.

    python -m beexformer.app.store URL CACHE [TRUSTED_KEY]    what `local` runs

fsspec knows the stores (extra [store]; https is in it, others want their own package, as s3fs for s3://) and takes
credentials from where these usually lie. config.json comes first and, where a key is trusted, its signature; the other
files may have the sizes that follow from it and have to have its digests. A checkpoint that lies in the cache is not
fetched again.

It is a process of its own: what fsspec loads has threads, which must not be where workers are forked, and a store that
hangs can be left.
"""

import contextlib
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from beexformer.model.errors import CheckpointError

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
SECONDS = 300.0  # that a checkpoint may take to come
KEPT = 2  # contents of one URL that stay in the cache
CHUNK = 1 << 20
LARGEST_SIGNATURE = 4096


def is_url(place: object) -> bool:
    """Whether a checkpoint lies in a store, and not in a folder."""
    return isinstance(place, str) and "://" in place


def shown(url: str) -> str:
    """The URL for people: without what may be a password."""
    return re.sub(r"//[^/@]*@", "//", url)


def local(url: str, cache: Path, trusted_key: str | None = None, seconds: float = SECONDS) -> Path:
    """The folder of a checkpoint that lies in a store, fetched where it isn't there. Raises CheckpointError."""
    command = [sys.executable, "-P", "-m", "beexformer.app.store", url, str(cache)]
    try:
        ended = subprocess.run(
            [*command, *([trusted_key] if trusted_key else [])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"{shown(url)} has not come within {seconds:g} s; is the store reachable?") from None
    if ended.returncode:
        said = (ended.stderr.strip() or "no word of why").splitlines()[-1]
        raise CheckpointError(said if ended.returncode == 2 else f"{shown(url)} can't be fetched: {said}")
    return Path(ended.stdout.strip())


def fetch(url: str, cache: Path, trusted_key: str | None = None) -> Path:
    """As `local`, in this process."""
    from beexformer.model.checkpoint import CONFIG, FETCH_AGAIN, LARGEST_TEXT, expected
    from beexformer.model.signature import SUFFIX

    files = _Files(url)
    try:
        contents = cache / hashlib.sha256(url.encode()).hexdigest()[:16]
        contents.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=contents) as beside:
            new = Path(beside) / "new"
            new.mkdir()
            name = files.copy(CONFIG, new, LARGEST_TEXT)
            if trusted_key is not None:
                name = hashlib.sha256((name + files.copy(CONFIG + SUFFIX, new, LARGEST_SIGNATURE)).encode()).hexdigest()
            result = contents / name[:16]
            if not result.is_dir():
                for file, (most, digest) in expected(new, trusted_key).items():
                    if files.copy(file, new, most) != digest:
                        raise CheckpointError(
                            f"{shown(url)}/{file} is damaged, or is just being written: its SHA-256 is not the one in "
                            f"{CONFIG}; try again, or {FETCH_AGAIN}"
                        )
                with contextlib.suppress(OSError):  # another process was quicker
                    new.rename(result)
        _forget_oldest(contents, result)
    except OSError as error:
        raise CheckpointError(f"{error.filename or cache} can't be written ({error.strerror or error})") from None
    return result


class _Files:
    """The files of a folder in a store."""

    def __init__(self, url: str) -> None:
        self.url, scheme = url, url.partition("://")[0]
        package = PACKAGES.get(scheme)
        try:
            from fsspec.core import url_to_fs

            self.store, self.folder = url_to_fs(url)
        except ImportError as error:
            wanted = f" {package}" if package else ""
            raise CheckpointError(
                f"{shown(url)} needs the extra [store] ({error}): pip install 'beexformer[store]'{wanted}"
            ) from None
        except Exception as error:  # whatever a store's own library raises
            raise CheckpointError(f"{shown(url)} can't be understood ({_words(error)})") from None

    def copy(self, name: str, folder: Path, most: int) -> str:
        """Write a file of at most `most` bytes into `folder`; its SHA-256. Raises CheckpointError."""
        digest, size = hashlib.sha256(), 0
        with (folder / name).open("wb") as target:
            for chunk in self._chunks(name):
                size += len(chunk)
                if size > most:
                    raise CheckpointError(
                        f"{shown(self.url)}/{name} is larger than {most} bytes, far more than it needs"
                    )
                digest.update(chunk)
                target.write(chunk)
        return digest.hexdigest()

    def _chunks(self, name: str) -> Any:
        try:
            with self.store.open(f"{self.folder.rstrip('/')}/{name}", "rb") as source:
                while chunk := source.read(CHUNK):
                    yield chunk
        except FileNotFoundError:
            raise CheckpointError(f"{shown(self.url)} has no {name}; give the URL of a checkpoint folder") from None
        except Exception as error:  # whatever a store's own library raises: no access, no network
            raise CheckpointError(f"{shown(self.url)}/{name} can't be read ({_words(error)})") from None


def _words(error: Exception) -> str:
    return shown(" ".join(f"{type(error).__name__}: {error}".split()))[:300]


def _forget_oldest(contents: Path, newest: Path) -> None:
    """Delete all but the last KEPT of those that were fetched from one URL."""
    newest.touch()
    kept = sorted(
        (path for path in contents.iterdir() if not path.name.startswith(".")), key=lambda p: p.stat().st_mtime
    )
    for old in kept[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    try:
        print(fetch(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:4]))
    except CheckpointError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
