# An empty environment on a Python that uv does not know, made by the last virtualenv that does; it brings the last pip.
files=/run/hpcbinder/step/files
uv=/run/hpcbinder/tools/uv
work=$PWD
export UV_CACHE_DIR=/run/hpcbinder/cache/uv
"$uv" venv --quiet --no-project --python /opt/jupyter/bin/python "$work/virtualenv"
"$uv" pip install --quiet --python "$work/virtualenv/bin/python" --no-deps --require-hashes --only-binary :all: \
    -r "$files/virtualenv.txt"
"$work/virtualenv/bin/virtualenv" --quiet --no-download --no-periodic-update --app-data "$work/app-data" \
    --python "$HPCBINDER_PYTHON" /opt/env
rm -f /opt/env/.gitignore /opt/env/CACHEDIR.TAG
