"""JupyterLab and Voilà as a learner sees them: a real server, a real kernel, a real browser."""
