"""`python -m launcher` is `ligo-dist`."""

import sys

from launcher.cli import main

sys.exit(main())
