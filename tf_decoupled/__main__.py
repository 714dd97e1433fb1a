"""`python -m tf_decoupled` is the command `tf-decoupled`."""

from tf_decoupled.experiments.app import run

if __name__ == "__main__":
    run()
