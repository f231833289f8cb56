# Builds what the repository's lock has no wheel of, and gets what comes from elsewhere: that alone, as the lock says.
install --no-deps -r "$files/requirements.txt" || failed
cat "$errors" >&2
if [ -s "$files/always.txt" ]; then install_packages -r "$files/always.txt"; fi
fix_kernel
finish
