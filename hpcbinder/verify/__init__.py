"""Whether an image really runs the notebooks of its repository."""

from hpcbinder.verify.content import image_content, repository_folder
from hpcbinder.verify.junit import junit_xml
from hpcbinder.verify.page import html_page
from hpcbinder.verify.verdict import WORDS, Failure, Missing, Status, Verdict, Verification
from hpcbinder.verify.verifying import Wish, choose_kernel, verify

__all__ = [
    "WORDS",
    "Failure",
    "Missing",
    "Status",
    "Verdict",
    "Verification",
    "Wish",
    "choose_kernel",
    "html_page",
    "image_content",
    "junit_xml",
    "repository_folder",
    "verify",
]
