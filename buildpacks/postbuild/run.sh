# Runs the repository's postBuild, in the repository's folder, with what repo2docker's images have: its variables, its
# paths, and commands that JupyterLab no longer has.
files=/run/hpcbinder/step/files
work=/run/hpcbinder/work
path=$(cat "$files/path")
interpreter=$(cat "$files/interpreter")
cd /srv/repo

shims=$work/shims
mkdir "$shims"
for name in jupyter jupyter-lab jupyter-labextension jupyter-nbextension jupyter-serverextension; do
    install -m 755 "$files/jupyter" "$shims/$name"
done
own_conda=$(command -v conda || :)
if [ -z "$own_conda" ]; then
    for name in conda mamba micromamba; do install -m 755 "$files/conda" "$shims/$name"; done
    # For `source activate notebook`, which looks on PATH.
    : >"$shims/activate"
    : >"$shims/deactivate"
fi
if [ -x /opt/env/bin/pip ]; then
    for name in pip pip3; do install -m 755 "$files/pip" "$shims/$name"; done
fi
export PATH="$shims:$PATH" HPCBINDER_SHIMS="$shims" HPCBINDER_ENV=/opt/env HPCBINDER_SERVER=/opt/jupyter
export HPCBINDER_POSTBUILD="$path"

# repo2docker's variables (its buildpacks/base.py and conda/__init__.py): there the repository is the home.
NB_USER=$(id -un)
NB_UID=$(id -u)
export NB_USER NB_UID USER="$NB_USER" HOME=/srv/repo REPO_DIR=/srv/repo
export NB_PYTHON_PREFIX=/opt/env KERNEL_PYTHON_PREFIX=/opt/env CONDA_DIR=/opt/env
# What programs keep in a home unasked does not come into the image; what they install for "the user", all find.
export XDG_CACHE_HOME="$work/.home/.cache" npm_config_cache="$work/.home/.npm" IPYTHONDIR="$work/.home/.ipython"
export JUPYTER_CONFIG_DIR=/opt/env/etc/jupyter JUPYTER_DATA_DIR=/opt/env/share/jupyter

# Its paths, for as long as it runs.
if [ ! -e /home/jovyan ] && [ ! -L /home/jovyan ]; then
    mkdir -p /home
    ln -s /srv/repo /home/jovyan
    own_home=no
fi
if [ ! -e /srv/conda ] && [ ! -L /srv/conda ]; then
    mkdir -p /srv/conda/envs /srv/conda/bin /srv/conda/etc/profile.d
    ln -s /opt/env /srv/conda/envs/notebook
    ln -s /opt/env /srv/conda/envs/kernel
    : >/srv/conda/etc/profile.d/conda.sh
    : >/srv/conda/bin/activate
    for name in conda mamba jupyter pip; do
        if [ -e "$shims/$name" ]; then ln -s "$shims/$name" "/srv/conda/bin/$name"; fi
    done
    for name in python python3; do ln -s "/opt/env/bin/$name" "/srv/conda/bin/$name"; done
    own_srv_conda=no
fi

before=$(ls -A)
if [ -e "$files/windows" ]; then
    cp -p "./$path" "$work/original"
    LC_ALL=C sed -e '1s/^\xef\xbb\xbf//' -e 's/\r$//' "$work/original" >"$work/converted"
    cat "$work/converted" >"./$path"
fi
if [ -n "$interpreter" ]; then
    set -- "$interpreter" "./$path"
else
    if [ ! -x "./$path" ]; then chmod 755 "./$path"; fi
    set -- "./$path"
fi
# Of what bash cannot read at all it says the line itself.
if [ -e "$files/trace" ] && bash -n "./$path" 2>/dev/null; then
    set -- env BASH_ENV="$files/trace" HPCBINDER_PATH="$PATH" "$@"
    traced=yes
fi
rc=0
"$@" </dev/null || rc=$?
if [ "$rc" -ne 0 ]; then
    if [ "$rc" -eq 127 ] && [ -z "${traced:-}" ] && [ -z "$interpreter" ]; then
        echo "hpcbinder: $path: is the program of its first line there? $(head -n 1 "./$path" | cut -c 1-200)" >&2
    fi
    if [ -z "${traced:-}" ]; then echo "hpcbinder: $path: failed with status $rc." >&2; fi
    exit "$rc"
fi

if [ -e "$files/windows" ]; then cat "$work/original" >"./$path"; fi
if [ -n "${own_home:-}" ]; then rm -f /home/jovyan; fi
if [ -n "${own_srv_conda:-}" ]; then
    if grep -q '/srv/conda' "./$path"; then
        # What it wrote may say so, too.
        rm -rf /srv/conda/bin /srv/conda/etc
    else
        rm -rf /srv/conda
    fi
fi
if [ -d .ipython/profile_default/startup ] && ! printf '%s\n' "$before" | grep -qxF .ipython; then
    # Where IPython looks for what all profiles start with (its core/shellapp.py).
    mkdir -p /opt/env/etc/ipython/startup
    cp -R .ipython/profile_default/startup/. /opt/env/etc/ipython/startup
    echo "hpcbinder: $path: what IPython is to start with lies in /opt/env/etc/ipython/startup." >&2
fi
for name in .bash_profile .bashrc .config .local .profile; do
    if [ -e "$name" ] && ! printf '%s\n' "$before" | grep -qxF -- "$name"; then
        echo "hpcbinder: $path: it left ~/$name, which no notebook finds: its home is the person's own." >&2
    fi
done

# Any user of the image may read what it made; what it installed is part of the record.
export PATH="${PATH#"$shims:"}"
readable /srv/repo /opt/env
if [ -x /opt/env/bin/python ]; then
    mkdir -p /opt/hpcbinder/packages
    /run/hpcbinder/tools/uv pip list --quiet --python /opt/env/bin/python --format json >"$work/python.json"
    cmp -s "$work/python.json" /opt/hpcbinder/packages/python.json ||
        cp "$work/python.json" /opt/hpcbinder/packages/python.json
fi
timeless /
