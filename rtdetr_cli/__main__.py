"""`python -m rtdetr_cli` is `rtdetr`."""

from rtdetr_cli.cli.main import main

if __name__ == "__main__":
    main()
