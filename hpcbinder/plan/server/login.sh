# Sourced last by /etc/profile, the profile of login shells (`bash -l`), which on Debian sets PATH anew: what it was is put
# back in front. The kernel knows it from the shell's start (proc(5), /proc/PID/environ), whoever had set it: the image,
# its `start`, a batch system. What other files here have added comes after that. POSIX shell; quiet; never fails.

_hpcb_path=$(sed -zn '/^PATH=/{s///p;q}' "/proc/$$/environ" 2>/dev/null | tr -d '\000') || _hpcb_path=
if [ -n "$_hpcb_path" ]; then
    _hpcb_rest=${PATH:-}:
    while [ -n "$_hpcb_rest" ]; do
        _hpcb_one=${_hpcb_rest%%:*}
        _hpcb_rest=${_hpcb_rest#*:}
        # An empty one would be the working folder.
        if [ -z "$_hpcb_one" ]; then continue; fi
        case :$_hpcb_path: in
        *:"$_hpcb_one":*) ;;
        *) _hpcb_path=$_hpcb_path:$_hpcb_one ;;
        esac
    done
    export PATH="$_hpcb_path"
fi
unset _hpcb_path _hpcb_rest _hpcb_one
