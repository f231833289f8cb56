# R as steps run it: nothing of anybody's profile, and CRAN where the site has it, as of the plan's day.
files=/run/hpcbinder/step/files
library=/usr/local/lib/R/site-library
suite=$(cat "$files/suite")
date=$(cat "$files/date")
cran=${HPCBINDER_CRAN:-https://packagemanager.posit.co/cran/__linux__/{suite\}/{date\}}
case $cran in
*'{date}'*) ;;
*) [ "$date" = latest ] || echo "hpcbinder: the site's CRAN has today's packages only, not those of $date" >&2 ;;
esac
HPCBINDER_REPOS=$(printf '%s' "$cran" | sed "s/{suite}/$suite/g; s/{date}/$date/g")
HPCBINDER_COMMON=$files/common.R
export HPCBINDER_REPOS HPCBINDER_COMMON
export R_PROFILE_USER="$files/common.R" R_ENVIRON_USER=/nonexistent R_LIBS_USER=/nonexistent

# What is built unpacks and runs its configure there.
printf '#!/bin/sh\n' >"$TMPDIR/can-run"
chmod 755 "$TMPDIR/can-run"
if ! "$TMPDIR/can-run" 2>/dev/null; then
    TMPDIR=$(mktemp -d /var/tmp/r.XXXXXX)
    export TMPDIR
    trap 'rm -rf "$TMPDIR"' EXIT
fi
mkdir -p "$library"
