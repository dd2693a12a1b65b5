"""What every test shares: checked annotations, quiet hypothesis, no network, where shared data lie."""

import os
import socket
from pathlib import Path

import checked
import hypothesis
import kernel_cache
import pytest

ROOT = Path(__file__).resolve().parents[1]

# Annotations that nobody can check at run time: functions compiled by Numba, and protocols.
UNCHECKED = ("dodona.core.protocols",)


def _checked_modules() -> list[str]:
    """Every module of dodona whose annotations beartype can check, by its dotted name."""
    modules = []
    for path in sorted((ROOT / "src" / "dodona").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        if path.name != "__init__.py" and name not in UNCHECKED and "@njit" not in path.read_text():
            modules.append(name)
    return modules


# Before the first import of dodona: the hook sees modules as they are loaded.
checked.install(_checked_modules())

if "PYTEST_XDIST_WORKER" in os.environ:
    kernel_cache.share(ROOT / ".pytest_cache" / "numba.lock")

hypothesis.settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=10_000)
hypothesis.settings.load_profile(os.environ.get("DODONA_HYPOTHESIS", "ci"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that leaves this machine fails: nothing is downloaded at import, test or run time."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"this test opened a connection to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared reference data: $DODONA_SHARED, or ../shared beside the checkout."""
    folder = Path(os.environ.get("DODONA_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"shared data not found at {folder}; set DODONA_SHARED")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Skips for want of shared data are counted aloud, so that they can not go unnoticed."""
    absent = [
        r for r in terminalreporter.stats.get("skipped", []) if "DODONA_SHARED" in str(r.longrepr)
    ]
    if absent:
        terminalreporter.write_line(f"{len(absent)} tests skipped: shared data not found")
