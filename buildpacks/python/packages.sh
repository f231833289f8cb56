# Builds what has no wheel; then bytecode, the kernel and the list of packages.
files=/run/hpcbinder/step/files
uv=/run/hpcbinder/tools/uv
python=/opt/env/bin/python
# A cache on disk for this step alone: a large package does not fit into memory.
export UV_CACHE_DIR=/opt/env/.uv-cache
trap 'rm -rf /opt/env/.uv-cache' EXIT
if ! "$uv" pip install --quiet --python "$python" \
    -r "$files/always.txt" -r "$files/requirements.txt" -c "$files/constraints.txt" 2>errors; then
    cat errors >&2
    if ! command -v cc >/dev/null && grep -qiE 'gcc|g\+\+|compiler|Python\.h' errors; then
        echo "hpcbinder: building a package takes a compiler: write build-essential and python3-dev (and the" \
            "libraries it needs) into apt.txt, or ask for a version that has a wheel." >&2
    fi
    exit 1
fi
cat errors >&2

if [ ! -e /opt/env/share/jupyter/kernels/python3/kernel.json ] ||
    ! grep -q /opt/env/bin/python /opt/env/share/jupyter/kernels/python3/kernel.json; then
    "$python" -I -B -m ipykernel install --prefix /opt/env --name python3 --display-name "Python 3 (ipykernel)" >/dev/null
fi
# Bytecode that does not look at times (every file of an image has the same), and the same every time it is made.
PYTHONHASHSEED=0 "$python" -s -B -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt/env/lib >/dev/null || :
mkdir -p /opt/hpcbinder/packages
"$uv" pip list --quiet --python "$python" --format json >/opt/hpcbinder/packages/python.json
rm -rf /opt/env/.uv-cache
settle /opt
