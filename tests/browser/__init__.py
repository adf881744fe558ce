"""Notebooks in JupyterLab, driven by a browser as a person would: what is drawn is what is tested."""
