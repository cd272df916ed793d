"""``promptclf`` and ``python -m promptclf``: the command line, once it is imported."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from promptclf.cli import main as run
    except KeyboardInterrupt:  # the command line says the same of one that comes later
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
