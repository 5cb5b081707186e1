"""`python -m medmind` is the same as `medmind`."""

import sys

from medmind.cli.main import main

sys.exit(main())
