"""``python -m hpcbinder``."""

from hpcbinder.cli.main import main

if __name__ == "__main__":
    main()
