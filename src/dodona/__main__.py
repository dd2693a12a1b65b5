"""python -m dodona: the command line."""

import sys

from dodona.cli import main

sys.exit(main())
