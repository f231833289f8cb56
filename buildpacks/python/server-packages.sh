# Packages for the notebook server and a kernel on its Python, laid where the server sees what a repository brings: below
# its own, whose versions stay as they are.
files=/run/hpcbinder/step/files
uv=/run/hpcbinder/tools/uv
python=/opt/jupyter/bin/python
export UV_CACHE_DIR=/run/hpcbinder/work/cache UV_COMPILE_BYTECODE=1 PYC_INVALIDATION_MODE=UNCHECKED_HASH PYTHONHASHSEED=0
"$uv" pip freeze --quiet --python "$python" >server.txt
"$uv" pip install --quiet --python "$python" --prefix /opt/env -r "$files/always.txt" -r "$files/requirements.txt" \
    -c "$files/constraints.txt" -c server.txt
spec=/opt/env/share/jupyter/kernels/python3/kernel.json
if [ -f "$spec" ]; then sed -i 's|^\( *\)"python3*",[[:space:]]*$|\1"/opt/jupyter/bin/python",|' "$spec"; fi
rm -rf /run/hpcbinder/work/cache /opt/env/.lock
settle /opt
