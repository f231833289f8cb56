# Builds what has no wheel.
install_packages -r "$files/always.txt" -r "$files/requirements.txt"
fix_kernel
finish
