# Unpacks the wheels there are of what was not resolved ahead, and runs nothing that came with them: this step sees the
# site's credentials and the shared cache.
export UV_CACHE_DIR=/run/hpcbinder/cache/uv
set --
for name in ${HPCBINDER_UNDATED:-}; do set -- "$@" --exclude-newer-package "$name=false"; done
if ! "$uv" pip install --quiet --python "$python" --no-build "$@" \
    -r "$files/always.txt" -r "$files/wheels.txt" -c "$files/constraints.txt"; then
    echo "hpcbinder: not all of it can be had as wheels; the next step tries to build what is missing." >&2
fi
fix_kernel
compile_bytecode
rm -f /opt/env/.lock
settle /opt
