"""The command-line tool ``hri-emo``: one module a command."""
