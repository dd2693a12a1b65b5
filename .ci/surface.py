"""Whether the public names of the listed rooms carry whole types, by `pyright --verifytypes`.

Attributes that a constructor sets without an annotation count as known: their type is inferred.

    python .ci/surface.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

# Only ever grows: a room enters when nothing in it is unknown.
WHOLE = ("algorithms", "catalog", "cli", "core", "errors", "figures", "policies", "runs", "verbs")


def main() -> int:
    bin_folder = Path(sys.executable).parent  # pyright looks for the package through PATH
    answer = subprocess.run(
        [sys.executable, "-m", "pyright", "--verifytypes", "dodona", "--ignoreexternal", "--outputjson"],
        env=os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True, text=True,
    )  # fmt: skip
    try:
        symbols = json.loads(answer.stdout)["typeCompleteness"]["symbols"]
    except (json.JSONDecodeError, KeyError):
        print(answer.stdout + answer.stderr, file=sys.stderr)
        return 2
    public = [s for s in symbols if s["isExported"]]
    unknown = [s for s in public if not s["isTypeKnown"] and not s["isTypeAmbiguous"]]
    held = [s for s in unknown if s["name"].split(".")[1] in WHOLE]
    for symbol in held:
        for note in symbol["diagnostics"]:
            print(f"{symbol['name']}: {note['message']}")
    print(f"{len(public)} public names, {len(unknown)} without a whole type, {len(held)} of them in rooms that must be whole")  # fmt: skip
    return 1 if held or not public else 0


if __name__ == "__main__":
    sys.exit(main())
