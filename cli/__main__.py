"""`python -m cli`: the `finetuned` command."""

from cli.main import app

if __name__ == "__main__":
    app()
