"""``python -m bilo_ppl`` is the command ``bilo-ppl``."""

import sys

from bilo_ppl.cli import main

if __name__ == "__main__":
    sys.exit(main())
