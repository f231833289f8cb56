# Unpacks wheels, and runs nothing that came with them: this step sees the site's credentials and the shared cache.
files=/run/hpcbinder/step/files
export UV_CACHE_DIR=/run/hpcbinder/cache/uv
if ! /run/hpcbinder/tools/uv pip install --quiet --python /opt/env/bin/python --no-build \
    -r "$files/always.txt" -r "$files/wheels.txt" -c "$files/constraints.txt"; then
    echo "hpcbinder: not all of it can be had as wheels; the next step tries to build what is missing." >&2
fi
settle /opt
