"""python -m kosmos_edge: the command line."""

from kosmos_edge.cli import main

if __name__ == "__main__":
    main()
