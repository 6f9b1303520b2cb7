"""``python -m postroad`` is the command `postroad`."""

from postroad.node.main import main

if __name__ == "__main__":
    main()
