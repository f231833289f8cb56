"""From a link to a repository to a running notebook on the cluster."""

__version__ = "0.1.0"
