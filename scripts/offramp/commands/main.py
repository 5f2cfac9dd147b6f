"""What starts when `offramp` is typed; without click it says what to install."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from offramp.commands.cli import offramp
    except ModuleNotFoundError as error:
        sys.exit(f"offramp: needs the package {error.name}: pip install '.[pipeline]', in a clone")
    offramp(prog_name="offramp")


if __name__ == "__main__":
    main()
