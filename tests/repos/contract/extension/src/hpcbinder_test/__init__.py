"""A server extension that a repository brings: answers /hpcbinder-test."""

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join


class Handler(JupyterHandler):
    def get(self):
        self.finish("the repository's extension")


def _jupyter_server_extension_points():
    return [{"module": "hpcbinder_test"}]


def _load_jupyter_server_extension(app):
    app.web_app.add_handlers(".*", [(url_path_join(app.web_app.settings["base_url"], "hpcbinder-test"), Handler)])
