#!/bin/sh
# Makes requirements.lock anew from requirements.in: hpcbinder/plan/server/update-lock.sh [UV]
#
# One lock serves every base (Python 3.11 to 3.13). Nothing of this machine's pip or uv settings takes part.
set -eu
uv=$(realpath "$(command -v "${1:-uv}")")
cd "$(dirname "$0")"
exec env -i HOME="$HOME" PATH="$PATH" ${SSL_CERT_FILE:+SSL_CERT_FILE="$SSL_CERT_FILE"} \
    ${https_proxy:+https_proxy="$https_proxy"} \
    "$uv" pip compile --no-config --default-index https://pypi.org/simple --universal --python-version 3.11 \
    --only-binary :all: --generate-hashes --no-annotate --upgrade --quiet \
    --custom-compile-command hpcbinder/plan/server/update-lock.sh \
    --override overrides.in --output-file requirements.lock requirements.in
