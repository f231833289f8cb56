# What every step that installs Python packages has: see pack.py, which puts this in front of its script.
files=/run/hpcbinder/step/files
uv=/run/hpcbinder/tools/uv
python=/opt/env/bin/python
# Looked up before anything is installed: a wheel may bring a bin/python of its own.
interpreter=$(readlink -f "$python")

# Bytecode of what this step installed. It does not look at times (every file of an image has the same), and is the same
# every time it is made. Without site (-S) the interpreter sees no file of any package but to compile it: no .pth runs.
compile_bytecode() {
    find /opt/env/lib -name '*.py' -newer /run/hpcbinder/work/.begin -print0 |
        PYTHONHASHSEED=0 xargs -0 -r -n 400 -P "$(nproc)" \
            "$interpreter" -s -S -B -m compileall -q -f --invalidation-mode unchecked-hash >/dev/null || :
}

# ipykernel's wheel says "python", whichever that is where the kernel is started; 5.1.1's has lines as Windows ends them.
fix_kernel() {
    spec=/opt/env/share/jupyter/kernels/python3/kernel.json
    if [ -f "$spec" ] && grep -q '^ *"python3*",[[:space:]]*$' "$spec"; then
        sed -i 's|^\( *\)"python3*",[[:space:]]*$|\1"/opt/env/bin/python",|' "$spec"
    fi
}

