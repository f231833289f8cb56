# The notebook server in an environment of its own, straight on the base; and our own files.
files=/run/hpcbinder/step/files
uv=/run/hpcbinder/tools/uv
python=/opt/jupyter/bin/python
export UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
# Files whose times are all alike need bytecode that does not look at them, and so do read-only images.
export UV_COMPILE_BYTECODE=1 PYC_INVALIDATION_MODE=UNCHECKED_HASH

"$uv" venv --quiet --python "$SERVER_PYTHON" /opt/jupyter
"$uv" pip install --python "$python" --require-hashes --no-deps --only-binary :all: -r "$files/requirements.lock"

# Only the hub itself serves these (64 MB), and a read-only server is not debugged.
find /opt/jupyter/share/jupyterhub/static -mindepth 1 -maxdepth 1 ! -name images -exec rm -rf {} +
find /opt/jupyter -name '*.map' -type f -delete

# The repository's server extensions and kernels are seen, after and so below what is pinned here.
site=$("$python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' "/opt/env${site#/opt/jupyter}" >"$site/zzz-hpcbinder.pth"
install -D -m 644 "$files/jupyter_server_config.json" /opt/jupyter/etc/jupyter/jupyter_server_config.json
install -D -m 644 "$files/overrides.json" /opt/jupyter/share/jupyter/lab/settings/overrides.json

install -D -m 755 "$files/entrypoint" /opt/hpcbinder/bin/entrypoint
install -D -m 644 "$files/profile.sh" /opt/hpcbinder/profile.sh
install -D -m 644 "$files/login.sh" /etc/profile.d/zz-hpcbinder.sh
install -d -m 755 /opt/hpcbinder/packages
"$python" -I "$files/list_packages.py" "$site" >/opt/hpcbinder/packages/server.json

chmod -R a+rX,go-w /opt/jupyter /opt/hpcbinder
# The same bytes whenever and wherever this ran: every file of the layer has one time.
find /opt /etc/profile.d/zz-hpcbinder.sh -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
touch --date="@$SOURCE_DATE_EPOCH" /etc /etc/profile.d
