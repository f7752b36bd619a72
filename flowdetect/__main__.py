"""`python -m flowdetect ...` is the command `flowdetect ...`."""

import sys

from flowdetect.commands import main

if __name__ == "__main__":
    sys.exit(main())
