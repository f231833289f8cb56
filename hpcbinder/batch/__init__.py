"""Notebooks executed with parameters, headless, here or as jobs: what `hpcbinder run --notebook` does.

A run is a folder: who waits for it reads there what tasks have written, and what they wrote stays whoever waits.
"""

from hpcbinder.batch.executing import Here, InJobs, Left, follow, job_of, submit
from hpcbinder.batch.outcome import Outcome, Run, State, outcomes, plain, read_run
from hpcbinder.batch.page import index_page, shown, summary
from hpcbinder.batch.parameters import parameters, rows
from hpcbinder.batch.staging import Wish, discard, stage, tidy

__all__ = [
    "Here",
    "InJobs",
    "Left",
    "Outcome",
    "Run",
    "State",
    "Wish",
    "discard",
    "follow",
    "index_page",
    "job_of",
    "outcomes",
    "parameters",
    "plain",
    "read_run",
    "rows",
    "shown",
    "stage",
    "submit",
    "summary",
    "tidy",
]
