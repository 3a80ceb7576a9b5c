"""The command line as `python -m session_fsm`."""

from .cli import main

if __name__ == "__main__":
    main()
