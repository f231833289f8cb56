Rscript --no-environ "$files/packages.R" "$files/packages" "$library" </dev/null
mkdir -p /opt/hpcbinder/packages
settle "$library" /opt/hpcbinder/packages
