# An empty environment on the chosen Python.
/run/hpcbinder/tools/uv venv --quiet --no-project --python "$HPCBINDER_PYTHON" /opt/env
rm -f /opt/env/.lock /opt/env/.gitignore /opt/env/CACHEDIR.TAG
settle /opt
