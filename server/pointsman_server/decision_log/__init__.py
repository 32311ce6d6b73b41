"""The decision log: what was decided and on what grounds, what came of it, and how good it was found, on disk.

    router --hands over--> writer (a task, a thread) --lines--> segment files --reader--> replay, explain, train

docs/decision-log.md is the reader's version.
"""
