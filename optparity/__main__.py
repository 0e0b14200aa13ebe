"""`python -m optparity` is the command `optparity`."""

from .cli import main

if __name__ == "__main__":
    main()
