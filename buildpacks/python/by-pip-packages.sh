# Installs what the environment is to hold, in versions that pip finds.
if [ -s "$files/pip.txt" ]; then
    "$uv" pip install --quiet --python "$python" -r "$files/pip.txt"
fi
if [ -s "$files/locked.txt" ]; then
    "$python" -m pip install --quiet --no-warn-script-location --no-deps -r "$files/locked.txt"
fi
if grep -q -e ' --hash=' "$files/requirements.txt"; then
    # With a hash on one line every line needs one.
    install -r "$files/requirements.txt"
    install -r "$files/always.txt"
else
    install -r "$files/always.txt" -r "$files/requirements.txt"
fi
finish
