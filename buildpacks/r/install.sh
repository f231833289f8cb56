cp -a /run/hpcbinder/step/repo/. .
Rscript --no-environ "$files/run.R" "$files/install.R" "$(cat "$files/path")" "$library" </dev/null
mkdir -p /opt/hpcbinder/packages
readable "$library" /opt/env
timeless /
