# Unpacks the wheels of a lock, and runs nothing that came with them: this step sees the site's credentials and the
# shared cache.
export UV_CACHE_DIR=/run/hpcbinder/cache/uv
"$uv" pip install --quiet --python "$python" --no-deps --require-hashes --only-binary :all: -r "$files/wheels.txt"
fix_kernel
compile_bytecode
install -D -m 644 "$files/python.json" /opt/hpcbinder/packages/python.json
rm -f /opt/env/.lock
settle /opt
