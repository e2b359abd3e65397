"""Run the command line with `python -m pgjobq`."""

from pgjobq.cli import main

if __name__ == "__main__":
    main()
