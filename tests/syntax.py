"""Does this Python read the code, without a warning? `python -W error tests/syntax.py`; nothing is imported."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main():
    """Compile every file."""
    paths = [path for folder in ("flowdetect", "tests", "examples", "docs") for path in (ROOT / folder).rglob("*.py")]
    for path in paths:
        compile(path.read_bytes(), str(path), "exec")
    print(f"Python {sys.version.split()[0]} reads {len(paths)} files")


if __name__ == "__main__":
    main()
