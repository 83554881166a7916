"""The `sockframe` command, or one line that says what it needs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; without click or rich, say what to install and exit with 1."""
    try:
        from .cli import command
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("click", "rich"):
            raise
        sys.exit(f"the sockframe command needs {missing}: pip install 'sockframe[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    command(prog_name="sockframe")


if __name__ == "__main__":
    main()
