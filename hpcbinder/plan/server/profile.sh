# Sourced by the entrypoint, and by /.singularity.d/env where a runtime has that: only sets variables.
#
# Finds a private folder that is writable here, whoever we are and however read-only the image is, and points the
# caches, runtime and config folders of Jupyter and friends at it. What is set already stays as it is. POSIX shell, and
# no more than Apptainer's built-in one (mvdan/sh) knows; quiet; never fails.
#
# HPCBINDER_TMPDIR: folder to make the private one in, instead of $TMPDIR, /tmp, /dev/shm or the home folder.

_hpcb_uid=$(id -u 2>/dev/null) || _hpcb_uid=
# Fixed times make files of two images look alike to caches that compare times (fonts, numba): one folder for each image.
_hpcb_image=$(cksum /opt/hpcbinder/manifest.json 2>/dev/null) || _hpcb_image=image
_hpcb_image=${_hpcb_image%% *}

if [ -n "${TMPDIR:-}" ]; then
    # A job's TMPDIR is often not there inside the image.
    if [ ! -d "$TMPDIR" ] || [ ! -w "$TMPDIR" ]; then unset TMPDIR; fi
fi

_hpcb_private=
for _hpcb_base in "${HPCBINDER_TMPDIR:-}" "${TMPDIR:-}" /tmp /dev/shm /var/tmp "${HOME:-}/.cache" "${HOME:-}"; do
    case $_hpcb_base in
    /*) ;;
    *) continue ;;
    esac
    if [ ! -d "$_hpcb_base" ] || [ ! -w "$_hpcb_base" ]; then continue; fi
    _hpcb_private=$_hpcb_base/hpcbinder-$_hpcb_uid
    if [ ! -d "$_hpcb_private" ]; then mkdir -m 700 "$_hpcb_private" 2>/dev/null || :; fi
    # In a folder that others write to too, the name may be somebody else's, or a link to what is not ours.
    if [ "$(stat -c '%u %a %F' "$_hpcb_private" 2>/dev/null)" = "$_hpcb_uid 700 directory" ]; then break; fi
    _hpcb_private=$(mktemp -d "$_hpcb_base/hpcbinder-$_hpcb_uid.XXXXXX" 2>/dev/null) || _hpcb_private=
    if [ -n "$_hpcb_private" ]; then break; fi
done

if [ -n "$_hpcb_private" ]; then
    if [ -z "${TMPDIR:-}" ] && { [ ! -d /tmp ] || [ ! -w /tmp ]; }; then
        mkdir -p "$_hpcb_private/tmp" 2>/dev/null || :
        export TMPDIR="$_hpcb_private/tmp"
    fi
    if [ -z "${HOME:-}" ] || [ ! -d "$HOME" ] || [ ! -w "$HOME" ]; then
        mkdir -p "$_hpcb_private/home" 2>/dev/null || :
        export HOME="$_hpcb_private/home"
    fi
    _hpcb_private=$_hpcb_private/$_hpcb_image
    # IPython warns where the folder above its own is missing.
    mkdir -p "$_hpcb_private" 2>/dev/null || :
    export JUPYTER_RUNTIME_DIR="${JUPYTER_RUNTIME_DIR:-$_hpcb_private/jupyter/runtime}"
    export JUPYTER_DATA_DIR="${JUPYTER_DATA_DIR:-$_hpcb_private/jupyter/data}"
    export JUPYTER_CONFIG_DIR="${JUPYTER_CONFIG_DIR:-$_hpcb_private/jupyter/config}"
    # How a person likes JupyterLab to look is kept: plain settings, no code, the only thing of the home's ~/.jupyter.
    export JUPYTERLAB_SETTINGS_DIR="${JUPYTERLAB_SETTINGS_DIR:-$HOME/.jupyter/lab/user-settings}"
    export IPYTHONDIR="${IPYTHONDIR:-$_hpcb_private/ipython}"
    export XDG_CACHE_HOME="${XDG_CACHE_HOME:-$_hpcb_private/cache}"
    export MPLCONFIGDIR="${MPLCONFIGDIR:-$_hpcb_private/matplotlib}"
    export NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR:-$_hpcb_private/numba}"
fi

# A uid without a name breaks what asks who is there (getpass.getuser): the number is a name too.
if [ -z "${USER:-}" ]; then
    USER=$(id -un 2>/dev/null) || USER=$_hpcb_uid
    export USER
fi
export LOGNAME="${LOGNAME:-$USER}"

unset _hpcb_uid _hpcb_image _hpcb_base _hpcb_private
