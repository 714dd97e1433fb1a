"""The console script `tf-decoupled`: outside of the package, whose import takes seconds.

Whoever presses Ctrl-C in those gets one line, too.
"""

import sys


def run() -> None:
    try:
        from tf_decoupled.experiments import app

        app.run()
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)
