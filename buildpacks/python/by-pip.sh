# For steps that install with the last pip that runs on the image's Python: for what uv does not take. They run code of
# the repository's choosing.
files=/run/hpcbinder/step/files
uv=/run/hpcbinder/tools/uv
python=/opt/env/bin/python
errors=/run/hpcbinder/work/errors
# Nothing that somebody set for the pips of today.
export PIP_CONFIG_FILE=/dev/null
unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL PIP_NO_INDEX PIP_REQUIRE_VIRTUALENV

# install ARGUMENT...
install() {
    if ! "$python" -m pip install --quiet --no-warn-script-location "$@" -c "$files/constraints.txt" 2>"$errors"; then
        cat "$errors" >&2
        if ! command -v cc >/dev/null && grep -qiE 'gcc|g\+\+|compiler|Python\.h' "$errors"; then
            echo "hpcbinder: building a package takes a compiler: write build-essential (and the libraries it needs)" \
                "into apt.txt, or ask for a version that has a wheel." >&2
        fi
        exit 1
    fi
    grep -v '^DEPRECATION: Python' "$errors" >&2 || :
}

# Bytecode of old Pythons holds the time and size of its source. So its sources get the time that all files have, first.
finish() {
    for spec in /opt/env/share/jupyter/kernels/python[23]/kernel.json; do
        if [ -f "$spec" ]; then sed -i 's|^\( *\)"python[23]*",[[:space:]]*$|\1"/opt/env/bin/python",|' "$spec"; fi
    done
    mkdir -p /opt/hpcbinder/packages
    "$python" -m pip list --format json 2>/dev/null >/opt/hpcbinder/packages/python.json
    find /opt/env \( -name '*.pyc' -o -name '*.pyo' \) -delete
    find /opt/env -newer /run/hpcbinder/work/.begin -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    how=$("$HPCBINDER_PYTHON" -c 'import sys; print("--invalidation-mode unchecked-hash" if sys.version_info > (3, 7) else "")')
    # shellcheck disable=SC2086
    PYTHONHASHSEED=0 "$HPCBINDER_PYTHON" -E -s -S -B -m compileall -q -f $how /opt/env/lib >/dev/null || :
    settle /opt
}
