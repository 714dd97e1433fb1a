"""`python -m tf_decoupled.migrate`."""

import sys

from tf_decoupled.migrate.command import main

if __name__ == "__main__":
    sys.exit(main())
