"""The command `python -m bench`, to be run from the repository, or one line that says what it needs."""

from __future__ import annotations

import sys

from .runner import needs


def run() -> None:
    """Run the command; without click or rich, say what to install and exit with 1."""
    try:
        from .command import main
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("click", "rich"):
            raise
        sys.exit(f"the benchmark {needs(missing)}")
    main(prog_name="python -m bench")


if __name__ == "__main__":
    run()
