"""The documents say what the code does."""

from pathlib import Path

from app.settings import markdown

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_every_setting_is_in_the_readme() -> None:
    assert markdown() in README, f"put this table into README.md:\n{markdown()}"
