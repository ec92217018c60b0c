"""OpenAPI document and service agree, whatever is sent: schemathesis makes requests from the one for the other."""

import subprocess
import sys

import pytest
from running import Server

RUN = "from schemathesis.cli import schemathesis; schemathesis()"
BLANK = "positive_data_acceptance"  # no schema can say that a text is blank or that no model is named so
LATE = "not_a_server_error"  # a deadline of a millisecond may pass: 504. That nothing is a 500 the log says
EACH_ALONE = "negative_data_rejection"  # a bad item of a batch is refused alone, and the batch is answered


def schemathesis(server: Server, examples: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    fixed = ("--no-color", "--generation-database", "none", "--max-examples", str(examples))
    command = [sys.executable, "-c", RUN, "run", f"{server.url}/openapi.json", *fixed, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Test cases:" in done.stdout, done.stdout + done.stderr
    return done


def disagreements(server: Server, examples: int) -> list[str]:
    """What schemathesis says where service and document disagree."""
    batch, others = ("--include-path", "/classify/batch"), ("--exclude-path", "/classify/batch")
    runs = [
        schemathesis(server, examples, *others, "--exclude-checks", f"{BLANK},{LATE}"),
        schemathesis(server, examples, *batch, "--exclude-checks", f"{BLANK},{LATE},{EACH_ALONE}"),
    ]
    bugs = [str(line) for line in server.lines() if line.get("status") == 500 or "traceback" in line]
    return [*(done.stdout for done in runs if done.returncode), *bugs]


@pytest.mark.slow
def test_whatever_is_sent_the_answer_is_as_documented(server: Server) -> None:
    result = disagreements(server, 3)
    assert result == [], "\n".join(result)


@pytest.mark.soak
def test_so_it_is_for_long(server: Server) -> None:
    assert disagreements(server, 1000) == []


@pytest.mark.slow
def test_a_disagreement_would_be_found(server: Server) -> None:
    """Blank texts are refused although the schema allows them: with that check on, there is something to find."""
    done = schemathesis(server, 20, "--include-path", "/classify", "--checks", BLANK)
    assert done.returncode == 1
    assert "Schema-valid request rejected" in done.stdout
