// A lab extension that does nothing: what is tested is that JupyterLab finds it.
