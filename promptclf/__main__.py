"""``python -m promptclf`` is the command line."""

from promptclf.cli import main

if __name__ == "__main__":
    main()
