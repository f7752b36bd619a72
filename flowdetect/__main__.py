"""`python -m flowdetect ...` does what the command `flowdetect ...` does."""

import sys

from flowdetect.commands import main

if __name__ == "__main__":
    sys.exit(main())
