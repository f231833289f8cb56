"""Starting a command in an image and ending it without a trace: the part that also runs without hpcbinder.

A registered kernel must go on working when hpcbinder is upgraded, moved or gone, and start fast on any node. So this
package imports nothing but the standard library, and `hpcbinder.register` copies it beside each kernelspec. The rest of
hpcbinder uses it in place.
"""
