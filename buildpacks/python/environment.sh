# An empty environment on the base's own Python.
/run/hpcbinder/tools/uv venv --quiet --no-project --python /usr/bin/python3 /opt/env
rm -f /opt/env/.lock /opt/env/.gitignore /opt/env/CACHEDIR.TAG
settle /opt
