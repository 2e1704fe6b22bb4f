"""`python -m micrograd` is the command `micrograd`."""

from micrograd.cli import main

if __name__ == "__main__":
    main()
