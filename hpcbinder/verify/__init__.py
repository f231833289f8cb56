"""Whether an image really runs the notebooks of its repository."""

from hpcbinder.verify.junit import junit_xml
from hpcbinder.verify.page import html_page
from hpcbinder.verify.verdict import WORDS, Failure, Missing, Status, Verdict, Verification
from hpcbinder.verify.verifying import Wish, verify

__all__ = [
    "WORDS",
    "Failure",
    "Missing",
    "Status",
    "Verdict",
    "Verification",
    "Wish",
    "html_page",
    "junit_xml",
    "verify",
]
