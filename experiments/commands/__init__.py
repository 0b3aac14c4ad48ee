"""The verbs of the command line, each written once for any task."""
