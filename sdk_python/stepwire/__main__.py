"""`python -m stepwire`: the command line, where the script `stepwire` is not on the PATH."""

from stepwire.cli import main

if __name__ == "__main__":
    main()
