"""`python -m umbel`: the command line."""

import sys

from umbel.cli.main import main

sys.exit(main())
