"""The life of a run: its configuration, folder, events, checkpoints, progress and report.

A trainer knows nothing of all this; ``drive`` walks it and does the writing.
"""

from dodona.runs.checkpoint import load_checkpoint, save_checkpoint
from dodona.runs.config import config_fields, config_hash, make_config
from dodona.runs.drive import Interrupted, drive
from dodona.runs.events import read_events
from dodona.runs.folder import RunFolder
from dodona.runs.report import write_comparison, write_report
from dodona.runs.trackers import tracking

__all__ = [
    "Interrupted",
    "RunFolder",
    "config_fields",
    "config_hash",
    "drive",
    "load_checkpoint",
    "make_config",
    "read_events",
    "save_checkpoint",
    "tracking",
    "write_comparison",
    "write_report",
]
